import type { Platform } from "../platform/port.ts";

/** A page: what a guest has said and dom0 not taken, or the other way round. */
const held = 4096;

/**
 * Where QEMU finds a serial port, as its `pipe` character device takes it: it reads from `PATH.in` and writes to
 * `PATH.out`.
 *
 * @param device its console, `/dev/hvc3`
 */
export function serialPath(device: string): string {
  return `/run/${device.slice("/dev/".length)}`;
}

/**
 * Joins a serial port of the guest's to its console. QEMU writes a port's bytes one by one, and each write to a console
 * is an event for dom0, which costs many times what the byte did. So QEMU gets two FIFOs, and what has come in
 * one by the time that QEMU waits goes on to the console at once.
 *
 * The console is raw from here on: it carries bytes, not lines. A terminal forgets its mode with the last
 * descriptor; ours stays open, so that nothing that dom0 sends is echoed or translated.
 *
 * @param complain gets why bytes no longer arrive
 * @throws SystemError
 */
export function joinSerialPort(
  { descriptors, files, sockets, storage }: Pick<Platform, "descriptors" | "files" | "sockets" | "storage">,
  device: string,
  complain: (text: string) => void,
): void {
  const open = (path: string) => descriptors.open(path, { access: "read-write" });
  const fifo = (path: string) => {
    files.makeFifo(path);
    const fd = open(path);
    storage.setPipeSize(fd, held);
    return fd;
  };
  const console = open(device);
  sockets.terminalRaw(console);
  const path = serialPath(device);
  const ways = [
    { what: "what the guest says", from: fifo(`${path}.out`), to: console },
    { what: "what the guest is sent", from: console, to: fifo(`${path}.in`) },
  ];
  for (const { what, from, to } of ways) {
    const ended = (why: string) =>
      complain(`${device}: ${what} on this serial port no longer arrives: ${why}; create the guest again`);
    storage.relay(from, to).then(
      () => ended("the console was closed"),
      (error: unknown) => ended(String(error)),
    );
  }
}
