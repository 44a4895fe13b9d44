import { type Descriptors, type Sockets, SystemError } from "../../agent/platform/port.ts";

/** One end of a pipe or socket pair: what was written to it waits in its peer's `queue`. */
interface End {
  readonly queue: number[];
  peer: End | null;
  readable: (() => void) | null;
  writable: (() => void) | null;
}

/** Bytes that wait in one direction before a write would block. */
const capacity = 4096;

/**
 * Descriptors of pipes and socket pairs in memory, with the kernel's rules: a closed peer is the end of the
 * stream to a reader and EPIPE to a writer, readiness is level-triggered, a number is used again.
 */
export class FakeDescriptors implements Partial<Descriptors> {
  readonly #ends = new Map<number, End>();
  #scheduled = false;

  /** Open descriptors: what a test expects to be unchanged in the end. */
  get count(): number {
    return this.#ends.size;
  }

  /** Descriptors handed over by `sendDescriptor`, in order. */
  readonly passed: number[] = [];

  readonly sockets: Pick<Sockets, "pipe" | "socketPair" | "sendDescriptor"> = {
    pipe: () => this.pair(),
    socketPair: () => this.pair(),
    sendDescriptor: (socket, bytes, descriptor) => {
      const count = this.write(socket, bytes);
      if (count !== null) this.passed.push(descriptor);
      return count;
    },
  };

  /** Two connected descriptors. */
  pair(): [number, number] {
    const [a, b]: [End, End] = [newEnd(), newEnd()];
    a.peer = b;
    b.peer = a;
    return [this.#add(a), this.#add(b)];
  }

  /** A second descriptor of the same end, as a child inherits it; it is the end's owner from now on. */
  inherit(fd: number): number {
    const copy = { ...this.#end(fd, "dup") };
    if (copy.peer) copy.peer.peer = copy;
    return this.#add(copy);
  }

  close(fd: number): void {
    const end = this.#end(fd, "close");
    this.#ends.delete(fd);
    if (end.peer?.peer === end) end.peer.peer = null;
    this.#schedule();
  }

  read(fd: number, into: Uint8Array): number | null {
    const end = this.#end(fd, "read");
    if (end.queue.length === 0) return end.peer === null ? 0 : null;
    const bytes = end.queue.splice(0, into.length);
    into.set(bytes);
    this.#schedule();
    return bytes.length;
  }

  write(fd: number, from: Uint8Array): number | null {
    const { peer } = this.#end(fd, "write");
    if (peer === null) throw new SystemError("EPIPE", "write", String(fd));
    const part = from.subarray(0, capacity - peer.queue.length);
    if (part.length === 0) return null;
    peer.queue.push(...part);
    this.#schedule();
    return part.length;
  }

  onReadable(fd: number, ready: (() => void) | null): void {
    this.#end(fd, "poll").readable = ready;
    this.#schedule();
  }

  onWritable(fd: number, ready: (() => void) | null): void {
    this.#end(fd, "poll").writable = ready;
    this.#schedule();
  }

  #add(end: End): number {
    let fd = 3;
    while (this.#ends.has(fd)) fd++;
    this.#ends.set(fd, end);
    return fd;
  }

  #end(fd: number, call: string): End {
    const end = this.#ends.get(fd);
    if (end === undefined) throw new SystemError("EBADF", call, String(fd));
    return end;
  }

  /** Calls handlers from the event loop, never from within the call that made them ready. */
  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => {
      this.#scheduled = false;
      for (const end of [...this.#ends.values()]) {
        if (end.readable && (end.queue.length > 0 || end.peer === null)) this.#call(end.readable);
        if (end.writable && (end.peer === null || end.peer.queue.length < capacity)) this.#call(end.writable);
      }
    });
  }

  #call(ready: () => void): void {
    ready();
    this.#schedule();
  }
}

function newEnd(): End {
  return { queue: [], peer: null, readable: null, writable: null };
}
