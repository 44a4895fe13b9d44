import { decodeText } from "../bytes/text.ts";
import type { Logger } from "../log/logger.ts";
import type { FileSystem, Platform } from "../platform/port.ts";
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
  // The shell's own number may be another's once it has been reaped; as a session's, it is none while there are members.
  endSession(platform, pid, running);
  await ended;
  log.info({ pid }, "debug shell: the session ended");
  return byClient;
}

/** Ends what was started in the session too: a `stubdom xenstore watch` that waits would stay. Never throws. */
function endSession({ files, processes }: Platform, session: number, leader: boolean): void {
  const end = (pid: number) => {
    try {
      processes.kill(pid, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  };
  if (leader) end(session);
  // Again for what was started meanwhile; who is being ended may be there still.
  for (let round = 0; round < 3; round++) {
    const others = membersOf(files, session);
    for (const pid of others) end(pid);
    if (others.length === 0) return;
  }
}

/** All but its leader. */
function membersOf(files: FileSystem, session: number): number[] {
  try {
    const pids = files.readDirectory("/proc").filter((name) => /^[0-9]+$/.test(name));
    return pids.map(Number).filter((pid) => pid !== session && sessionOf(files, pid) === session);
  } catch {
    return [];
  }
}

/** proc_pid_stat(5): the fourth field behind the name, which stands in brackets and may hold any. */
function sessionOf(files: FileSystem, pid: number): number | undefined {
  try {
    const stat = decodeText(files.readFile(`/proc/${pid}/stat`, 4096));
    return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[3]);
  } catch {
    return undefined;
  }
}

async function pump(from: ByteStream, to: ByteStream): Promise<void> {
  try {
    for (let chunk = await from.read(); chunk !== null; chunk = await from.read()) await to.write(chunk);
  } catch {
    // The other side is gone, which ends the session.
  }
}
