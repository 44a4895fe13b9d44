import { type Descriptors, SystemError } from "../../agent/platform/port.ts";
import { xenbusDevice } from "../../agent/xenstore/xenbus-device.ts";
import type { FakeXenbus } from "./xenstored.ts";

interface Opened {
  readonly bus: FakeXenbus;
  readonly inbox: Uint8Array[];
  atEnd: boolean;
  ready: (() => void) | null;
}

/** /dev/xen/xenbus as the kernel gives it: a descriptor, and a connection of its own, each time it is opened. */
export class FakeXenbusDescriptors implements Partial<Descriptors> {
  readonly #opened = new Map<number, Opened>();
  #next: number;

  /** @param connect what the next descriptor is connected to; numbers go up from `first` */
  constructor(
    first: number,
    private readonly connect: () => FakeXenbus,
  ) {
    this.#next = first;
  }

  /** Open descriptors. */
  get count(): number {
    return this.#opened.size;
  }

  has(fd: number): boolean {
    return this.#opened.has(fd);
  }

  open(path: string): number {
    if (path !== xenbusDevice) throw new SystemError("ENOENT", "open", path);
    const opened: Opened = { bus: this.connect(), inbox: [], atEnd: false, ready: null };
    const fd = this.#next++;
    this.#opened.set(fd, opened);
    void receive(opened);
    return fd;
  }

  close(fd: number): void {
    this.#at(fd, "close").bus.close();
    this.#opened.delete(fd);
  }

  read(fd: number, into: Uint8Array): number | null {
    const opened = this.#at(fd, "read");
    const { inbox, atEnd } = opened;
    const chunk = inbox.shift();
    if (chunk === undefined) return atEnd ? 0 : null;
    into.set(chunk.subarray(0, into.length));
    if (chunk.length <= into.length) return chunk.length;
    inbox.unshift(chunk.subarray(into.length));
    setImmediate(() => opened.ready?.()); // level-triggered
    return into.length;
  }

  write(fd: number, from: Uint8Array): number {
    void this.#at(fd, "write").bus.write(from.slice());
    return from.length;
  }

  onReadable(fd: number, ready: (() => void) | null): void {
    const opened = this.#at(fd, "poll");
    opened.ready = ready;
    if (opened.inbox.length > 0 || opened.atEnd) setImmediate(() => opened.ready?.());
  }

  onWritable(fd: number): void {
    this.#at(fd, "poll");
  }

  #at(fd: number, call: string): Opened {
    const opened = this.#opened.get(fd);
    if (opened === undefined) throw new SystemError("EBADF", call, String(fd));
    return opened;
  }
}

async function receive(opened: Opened): Promise<void> {
  for (let chunk = await opened.bus.read(); chunk !== null; chunk = await opened.bus.read()) {
    opened.inbox.push(chunk);
    opened.ready?.();
  }
  opened.atEnd = true;
  opened.ready?.();
}
