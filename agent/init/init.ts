import { ConsoleSink } from "../log/console-sink.ts";
import type { LogSink } from "../log/log.ts";
import { createLog, type Log } from "../log/log.ts";
import type { Platform } from "../platform/port.ts";
import { mountAll } from "./mounts.ts";
import { Stubdom } from "./stubdom.ts";

/** The primary console: its output ends in /var/log/xen/qemu-dm-<guest>.log. */
const consoleDevice = "/dev/hvc0";

/**
 * Process 1 of the stub domain. Returns once the boot has come to its end, good or bad; the event loop then
 * goes on for as long as the machine runs. Never rejects.
 *
 * @param onUncaught registers the hook for errors that no code caught
 */
export async function runInit(
  platform: Platform,
  onUncaught: (report: (error: unknown) => void) => void,
): Promise<void> {
  const log = openLog(platform);
  // A fault of the agent's own: told, but no reason to end the guest's device model.
  onUncaught((error) => log.error({}, `fault of the agent: ${describe(error)}`));
  const stubdom = new Stubdom(platform, log);
  try {
    await stubdom.boot();
  } catch (error) {
    await stubdom.fail(error);
  }
}

function openLog(platform: Platform): Log {
  let sink: LogSink = { write() {} };
  const log = createLog(platform.clock, {
    write: (line) => sink.write(line),
    flush: async () => sink.flush?.(),
  });
  try {
    mountAll(platform.files);
    const fd = platform.descriptors.open(consoleDevice, { access: "write", nonBlocking: true });
    platform.sockets.terminalRaw(fd);
    sink = new ConsoleSink(platform.descriptors, fd);
  } catch (error) {
    // Without /dev there is but the descriptor that the kernel gave us.
    sink = new ConsoleSink(platform.descriptors, 1);
    log.error({}, `no console ${consoleDevice}: ${describe(error)}`);
  }
  return log;
}

function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.stack
    ? `${error.message} at ${error.stack.trim().replaceAll(/\s*\n\s*/g, " < ")}`
    : error.message;
}
