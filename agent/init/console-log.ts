import { ConsoleSink } from "../log/console-sink.ts";
import { describe } from "../log/describe.ts";
import { createLog, type Log } from "../log/log.ts";
import type { Platform } from "../platform/port.ts";

/** The primary console: its output ends in /var/log/xen/qemu-dm-<guest>.log. */
const consoleDevice = "/dev/hvc0";

/** The log of PID 1. @param unmounted why there may be no /dev, if so */
export function openLog(platform: Platform, unmounted: unknown): Log {
  let trouble = unmounted;
  let fd = 1; // which the kernel gave us
  try {
    const console = platform.descriptors.open(consoleDevice, { access: "write", nonBlocking: true });
    platform.sockets.terminalRaw(console);
    fd = console;
  } catch (error) {
    trouble ??= error;
  }
  const log = createLog(platform.clock, new ConsoleSink(platform.descriptors, fd));
  if (trouble !== undefined) log.error({}, `no console ${consoleDevice}: ${describe(trouble)}`);
  return log;
}
