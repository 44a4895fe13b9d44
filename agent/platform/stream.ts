import { type Descriptors, type Platform, SystemError } from "./port.ts";

/**
 * A two-way stream of bytes, pulled: nothing is read that nobody asked for, so that a loop of `read` and
 * `write` is bounded in memory by construction.
 */
export interface ByteStream {
  /** At least one byte, or `null` at the end of the stream or after `close`. One read at a time. */
  read(): Promise<Uint8Array | null>;
  /**
   * Resolves once the other side's buffer has taken every byte; concurrent writes keep their order.
   * Rejects when the stream is closed or broken before that.
   */
  write(bytes: Uint8Array): Promise<void>;
  /** Idempotent. A waiting read resolves to `null`, a waiting write rejects. */
  close(): void;
}

/** A stream over which descriptors can be handed to the other side: a unix socket. */
export interface PassingStream extends ByteStream {
  /**
   * Like {@link write}, and a copy of `descriptor` goes over with the first byte. The caller's own may be
   * closed once the promise has settled, and not before.
   */
  writeWith(bytes: Uint8Array, descriptor: number): Promise<void>;
}

export class StreamClosed extends Error {
  override readonly name = "StreamClosed";
}

/** Most bytes that one `read` returns; also what a stream holds in memory at the most. */
const readChunk = 16 * 1024;

/** A {@link ByteStream} over a non-blocking descriptor, which it owns and closes. */
export class DescriptorStream implements ByteStream {
  #closed = false;
  #wake: { read?: () => void; write?: () => void } = {};
  #writes: Promise<void> = Promise.resolve();

  constructor(
    private readonly descriptors: Descriptors,
    protected readonly fd: number,
    private readonly label: string,
  ) {}

  async read(): Promise<Uint8Array | null> {
    const buffer = new Uint8Array(readChunk);
    while (!this.#closed) {
      const count = this.descriptors.read(this.fd, buffer);
      if (count !== null) return count === 0 ? null : buffer.subarray(0, count);
      await this.#ready("read");
    }
    return null;
  }

  write(bytes: Uint8Array): Promise<void> {
    return this.send(bytes, (rest) => this.descriptors.write(this.fd, rest));
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.descriptors.onReadable(this.fd, null);
    this.descriptors.onWritable(this.fd, null);
    this.descriptors.close(this.fd);
    const { read, write } = this.#wake;
    this.#wake = {};
    read?.();
    write?.();
  }

  /** Sends all of `bytes` after what is already being sent; `send` takes some of the rest, or would block. */
  protected send(bytes: Uint8Array, send: (rest: Uint8Array) => number | null): Promise<void> {
    const done = this.#writes.then(() => this.#sendAll(bytes, send));
    this.#writes = done.catch(() => {});
    return done;
  }

  async #sendAll(bytes: Uint8Array, send: (rest: Uint8Array) => number | null): Promise<void> {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#closed) throw new StreamClosed(`${this.label}: closed with ${rest.length} bytes unsent`);
      const count = send(rest);
      if (count === 0) throw new SystemError("EIO", "write", this.label);
      if (count === null) await this.#ready("write");
      else rest = rest.subarray(count);
    }
  }

  #ready(direction: "read" | "write"): Promise<void> {
    const register = direction === "read" ? "onReadable" : "onWritable";
    return new Promise((resolve) => {
      this.#wake[direction] = resolve;
      this.descriptors[register](this.fd, () => {
        this.descriptors[register](this.fd, null);
        delete this.#wake[direction];
        resolve();
      });
    });
  }
}

/** A {@link PassingStream} over a unix stream socket, which it owns and closes. */
export class SocketStream extends DescriptorStream implements PassingStream {
  constructor(
    private readonly platform: {
      readonly descriptors: Descriptors;
      readonly sockets: Pick<Platform["sockets"], "sendDescriptor">;
    },
    socket: number,
    label: string,
  ) {
    super(platform.descriptors, socket, label);
  }

  writeWith(bytes: Uint8Array, descriptor: number): Promise<void> {
    const { descriptors, sockets } = this.platform;
    let passed = false;
    return this.send(bytes, (rest) => {
      if (passed) return descriptors.write(this.fd, rest);
      const count = sockets.sendDescriptor(this.fd, rest, descriptor);
      passed = count !== null;
      return count;
    });
  }
}
