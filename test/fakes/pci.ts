import { SystemError } from "../../agent/platform/port.ts";
import type { FakePieces } from "./platform.ts";

/** The configuration space of a device, 256 bytes. */
export function configSpace({
  vendor = 0x8086,
  device = 0x100e,
  capabilities = [] as readonly number[],
} = {}): Uint8Array {
  const bytes = new Uint8Array(256);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, vendor, true);
  view.setUint16(2, device, true);
  if (capabilities.length > 0) view.setUint16(6, 0x0010, true);
  let pointer = 0x34;
  for (const [index, id] of capabilities.entries()) {
    const at = 0x40 + 16 * index;
    bytes[pointer] = at;
    bytes[at] = id;
    pointer = at + 1;
  }
  return bytes;
}

/**
 * pcifront's end of sysfs, and the kernel's word about what comes there. Its descriptors are numbered from
 * {@link firstDescriptor} on, so that they can stand beside others.
 */
export class FakePciSysfs {
  static readonly firstDescriptor = 500_000;
  static readonly eventsDescriptor = 499_999;
  /** Configuration spaces by address, `0000:00:00.0`. */
  readonly devices = new Map<string, Uint8Array>();
  /** Bytes read of all of them. */
  bytesRead = 0;
  readonly #open = new Map<number, { bytes: Uint8Array; at: number }>();
  #next = FakePciSysfs.firstDescriptor;
  #waiting = 0;
  #ready: (() => void) | null = null;
  #listening = 0;

  /** Descriptors that nobody has closed. */
  get leaked(): number {
    return this.#open.size + this.#listening;
  }

  /** The device comes, and the kernel says so. */
  show(local: string, bytes = configSpace()): void {
    this.devices.set(local, bytes);
    this.announce();
  }

  announce(): void {
    if (this.#listening === 0) return;
    this.#waiting++;
    setImmediate(() => this.#ready?.());
  }

  readonly pieces = {
    descriptors: {
      open: (path: string) => {
        const local = /^\/sys\/bus\/pci\/devices\/([^/]+)\/config$/.exec(path)?.[1];
        const bytes = local === undefined ? undefined : this.devices.get(local);
        if (bytes === undefined) throw new SystemError("ENOENT", "open", path);
        this.#open.set(++this.#next, { bytes, at: 0 });
        return this.#next;
      },
      seek: (fd: number, offset: number) => {
        this.#device(fd).at = offset;
      },
      read: (fd: number, into: Uint8Array) => {
        if (fd === FakePciSysfs.eventsDescriptor) return this.#waiting-- > 0 ? 40 : null;
        const device = this.#device(fd);
        const part = device.bytes.subarray(device.at, device.at + into.length);
        into.set(part);
        device.at += part.length;
        this.bytesRead += part.length;
        return part.length;
      },
      close: (fd: number) => {
        if (fd === FakePciSysfs.eventsDescriptor) this.#listening--;
        else if (!this.#open.delete(fd)) throw new SystemError("EBADF", "close", String(fd));
      },
      onReadable: (_fd: number, ready: (() => void) | null) => {
        this.#ready = ready;
      },
    },
    sockets: {
      kernelEvents: () => {
        this.#listening++;
        this.#waiting = 0;
        return FakePciSysfs.eventsDescriptor;
      },
    },
  } satisfies FakePieces;

  #device(fd: number): { bytes: Uint8Array; at: number } {
    const device = this.#open.get(fd);
    if (device === undefined) throw new SystemError("EBADF", "use", String(fd));
    return device;
  }
}
