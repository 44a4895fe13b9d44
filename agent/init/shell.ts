import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import { type ByteStream, DescriptorStream } from "../platform/stream.ts";
import type { Children } from "./children.ts";

const shell = "/bin/sh";

/**
 * One session of the debug shell: a shell of its own, joined with `client` both ways, and ended with it.
 * Resolves when the session is over, to whether the client ended it; never rejects.
 */
export async function shellSession(
  platform: Platform,
  children: Children,
  log: Logger,
  client: ByteStream,
): Promise<boolean> {
  const [ours, theirs] = platform.sockets.socketPair();
  const stream = new DescriptorStream(platform.descriptors, ours, shell);
  let pid: number;
  try {
    pid = platform.processes.spawn({
      argv: [shell, "-i"],
      env: ["PATH=/bin:/sbin:/usr/bin", "HOME=/", "PS1=stubdom# "],
      descriptors: [theirs, theirs, theirs],
      newSession: true,
    });
  } catch (error) {
    log.error({}, `debug shell: ${String(error)}`);
    stream.close();
    client.close();
    return false;
  } finally {
    platform.descriptors.close(theirs);
  }
  let running = true;
  const ended = new Promise<void>((resolve) =>
    children.onExit(pid, () => {
      running = false;
      resolve();
    }),
  );
  log.info({ pid }, "debug shell: a session began");
  const byClient = await Promise.race([
    pump(client, stream).then(() => true),
    pump(stream, client).then(() => false),
  ]);
  stream.close();
  client.close();
  try {
    // Its number may be another's once it has been reaped.
    if (running) platform.processes.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
  await ended;
  log.info({ pid }, "debug shell: the session ended");
  return byClient;
}

async function pump(from: ByteStream, to: ByteStream): Promise<void> {
  try {
    for (let chunk = await from.read(); chunk !== null; chunk = await from.read()) await to.write(chunk);
  } catch {
    // The other side is gone, which ends the session.
  }
}
