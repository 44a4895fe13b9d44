import { concatBytes } from "../../agent/bytes/bytes.ts";
import { type PassingStream, StreamClosed } from "../../agent/platform/stream.ts";
import { Random } from "./random.ts";

export interface MemoryStreamOptions {
  /** Where the splits fall; the same seed splits the same way. Default 1. */
  readonly seed?: number;
  /** Most bytes that one read returns; each read takes a random number up to it. Default 7. */
  readonly largestPiece?: number;
  /** Bytes that wait in each direction before a write does. Default 64 KiB. */
  readonly capacity?: number;
}

/**
 * Two connected ends of a stream in memory. By default every read returns a few bytes only, split at
 * random: a parser that passes against it does not depend on how the bytes arrived.
 */
export function memoryStream(options: MemoryStreamOptions = {}): [MemoryEnd, MemoryEnd] {
  const random = new Random(options.seed ?? 1);
  const piece = options.largestPiece ?? 7;
  const capacity = options.capacity ?? 64 * 1024;
  const there = new Pipe(random, piece, capacity);
  const back = new Pipe(random, piece, capacity);
  return [new MemoryEnd(there, back), new MemoryEnd(back, there)];
}

export class MemoryEnd implements PassingStream {
  /** Descriptors handed over from this end, in order. */
  readonly passed: number[] = [];
  #closed = false;
  #writes: Promise<void> = Promise.resolve();

  constructor(
    private readonly incoming: Pipe,
    private readonly outgoing: Pipe,
  ) {}

  get closed(): boolean {
    return this.#closed;
  }

  read(): Promise<Uint8Array | null> {
    return this.incoming.take();
  }

  write(bytes: Uint8Array): Promise<void> {
    const done = this.#writes.then(() => this.outgoing.put(bytes));
    this.#writes = done.catch(() => {});
    return done;
  }

  writeWith(bytes: Uint8Array, descriptor: number): Promise<void> {
    this.passed.push(descriptor);
    return this.write(bytes);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.incoming.abandon();
    this.outgoing.finish();
  }
}

/** One direction. `finished`: the writer closed, what is queued is still read. `abandoned`: the reader did. */
class Pipe {
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  #finished = false;
  #abandoned = false;
  #wakeReader: (() => void) | undefined;
  #wakeWriter: (() => void) | undefined;

  constructor(
    private readonly random: Random,
    private readonly largestPiece: number,
    private readonly capacity: number,
  ) {}

  async take(): Promise<Uint8Array | null> {
    for (;;) {
      if (this.#abandoned) return null;
      const first = this.#queue.shift();
      if (first !== undefined) return this.#split(first);
      if (this.#finished) return null;
      if (this.#wakeReader !== undefined) throw new Error("two reads of one stream at a time");
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
    }
  }

  async put(bytes: Uint8Array): Promise<void> {
    let rest = bytes.slice();
    while (rest.length > 0) {
      if (this.#abandoned || this.#finished) {
        throw new StreamClosed(`memory stream: closed with ${rest.length} bytes unsent`);
      }
      const room = this.capacity - this.#queued;
      if (room === 0) {
        await new Promise<void>((resolve) => {
          this.#wakeWriter = resolve;
        });
        continue;
      }
      const part = rest.subarray(0, room);
      rest = rest.subarray(part.length);
      this.#queue.push(part);
      this.#queued += part.length;
      this.#wake();
    }
  }

  finish(): void {
    this.#finished = true;
    this.#wake();
  }

  abandon(): void {
    this.#abandoned = true;
    this.#queue.length = 0;
    this.#wake();
  }

  /** A random piece off the front; now and then one that joins what two writes brought. */
  #split(first: Uint8Array): Uint8Array {
    const wanted = this.random.between(1, this.largestPiece);
    const second = wanted > first.length ? this.#queue.shift() : undefined;
    const whole = second === undefined ? first : concatBytes([first, second]);
    const piece = whole.subarray(0, wanted);
    if (piece.length < whole.length) this.#queue.unshift(whole.subarray(piece.length));
    this.#queued -= piece.length;
    const wake = this.#wakeWriter;
    this.#wakeWriter = undefined;
    wake?.();
    return piece.slice();
  }

  #wake(): void {
    const reader = this.#wakeReader;
    const writer = this.#wakeWriter;
    this.#wakeReader = undefined;
    this.#wakeWriter = undefined;
    reader?.();
    writer?.();
  }
}
