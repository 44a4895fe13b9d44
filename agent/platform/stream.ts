import { type Descriptors, type Platform, SystemError } from "./port.ts";

/**
 * A two-way stream of bytes, pulled: nothing is read that nobody asked for, so that a loop of `read` and
 * `write` is bounded in memory by construction.
 */
export interface ByteStream {
  /** At least one byte, or `null` at the end of the stream or after `close`. One read at a time. */
  read(): Promise<Uint8Array | null>;
  /**
   * Resolves once the other side's buffer has taken every byte, {@link written} where that is at once; concurrent
   * writes keep their order.
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

/**
 * A two-way stream of bytes, pushed: all that comes is taken at once, by somebody who keeps no more of it than a bound
 * of their own. It saves a promise and a buffer for each piece.
 */
export interface PushedStream extends Pick<ByteStream, "write" | "close"> {
  /**
   * Hands over the first `count` bytes of `piece`, again and again; `piece` is used anew when `take` has returned.
   * Resolves at the end of the stream or after `close`; rejects when the stream breaks, or with what `take` throws, and
   * then takes nothing any more. Called once, and `read` never.
   */
  receive(take: (piece: Uint8Array, count: number) => void): Promise<void>;
}

export class StreamClosed extends Error {
  override readonly name = "StreamClosed";
}

/** Most bytes that one `read` returns, unless the stream's owner knows better; also what it holds in memory at the most. */
const readChunk = 16 * 1024;

/** What a write gives that was taken whole at once: there is nothing to wait for, and nothing to go wrong any more. */
export const written = Promise.resolve();

const nothing = new Uint8Array(0);

interface Reader {
  resolve(bytes: Uint8Array | null): void;
  reject(error: unknown): void;
}

/**
 * A {@link ByteStream} over a non-blocking descriptor, which it owns and closes.
 *
 * It is on the way of every reply from xenstore, when the guest waits for its start: no promise for a write that the
 * kernel takes whole; and it goes on listening between reads, until something comes that nobody wants.
 */
export class DescriptorStream implements ByteStream, PushedStream {
  #closed = false;
  #reader: Reader | undefined;
  #listening = false;
  #writer: (() => void) | undefined;
  /** Writes that have not been taken whole. */
  #unsent = 0;
  #writes: Promise<void> = written;

  constructor(
    private readonly descriptors: Descriptors,
    protected readonly fd: number,
    private readonly label: string,
    private readonly chunk = readChunk,
  ) {}

  read(): Promise<Uint8Array | null> {
    if (this.#closed) return Promise.resolve(null);
    // While it listens, it is told.
    if (!this.#listening) {
      try {
        const bytes = this.#take();
        if (bytes !== undefined) return Promise.resolve(bytes);
      } catch (error) {
        return Promise.reject(error);
      }
      this.descriptors.onReadable(this.fd, this.#readable);
      this.#listening = true;
    }
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
    });
  }

  async receive(take: (piece: Uint8Array, count: number) => void): Promise<void> {
    if (this.#closed) return;
    const piece = new Uint8Array(this.chunk);
    const ended = new Promise<unknown>((resolve, reject) => {
      this.#reader = { resolve, reject };
    });
    this.descriptors.onReadable(this.fd, () => {
      try {
        const count = this.descriptors.read(this.fd, piece);
        if (count === null) return;
        if (count > 0) take(piece, count);
        else this.#reader?.resolve(null);
      } catch (error) {
        this.#reader?.reject(error);
      }
    });
    try {
      await ended;
    } finally {
      this.#reader = undefined;
      if (!this.#closed) this.descriptors.onReadable(this.fd, null);
    }
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
    this.#reader?.resolve(null);
    this.#reader = undefined;
    this.#writer?.();
    this.#writer = undefined;
  }

  /** Sends all of `bytes` after what is already being sent; `send` takes some of the rest, or would block. */
  protected send(bytes: Uint8Array, send: (rest: Uint8Array) => number | null): Promise<void> {
    if (this.#unsent === 0) {
      try {
        bytes = this.#sendSome(bytes, send);
      } catch (error) {
        return Promise.reject(error);
      }
      if (bytes.length === 0) return written;
    }
    this.#unsent++;
    const sent = this.#writes
      .then(() => this.#sendAll(bytes, send))
      .finally(() => {
        this.#unsent--;
      });
    this.#writes = sent.catch(() => {});
    return sent;
  }

  /** What is there, `undefined` when that is nothing yet. */
  #take(): Uint8Array | null | undefined {
    const buffer = new Uint8Array(this.chunk);
    const count = this.descriptors.read(this.fd, buffer);
    if (count === null) return undefined;
    return count === 0 ? null : buffer.subarray(0, count);
  }

  readonly #readable = (): void => {
    const reader = this.#reader;
    if (reader === undefined) {
      this.descriptors.onReadable(this.fd, null);
      this.#listening = false;
      return;
    }
    try {
      const bytes = this.#take();
      if (bytes === undefined) return;
      this.#reader = undefined;
      reader.resolve(bytes);
    } catch (error) {
      this.#reader = undefined;
      reader.reject(error);
    }
  };

  async #sendAll(bytes: Uint8Array, send: (rest: Uint8Array) => number | null): Promise<void> {
    for (let rest = bytes; ; await this.#writable()) {
      rest = this.#sendSome(rest, send);
      if (rest.length === 0) return;
    }
  }

  /** Sends as much as is taken at once; gives the rest. */
  #sendSome(bytes: Uint8Array, send: (rest: Uint8Array) => number | null): Uint8Array {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#closed) throw new StreamClosed(`${this.label}: closed with ${rest.length} bytes unsent`);
      const count = send(rest);
      if (count === 0) throw new SystemError("EIO", "write", this.label);
      if (count === null) break;
      if (count === rest.length) return nothing;
      rest = rest.subarray(count);
    }
    return rest;
  }

  #writable(): Promise<void> {
    return new Promise((resolve) => {
      this.#writer = resolve;
      this.descriptors.onWritable(this.fd, () => {
        this.descriptors.onWritable(this.fd, null);
        this.#writer = undefined;
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
