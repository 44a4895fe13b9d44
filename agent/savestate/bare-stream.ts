import { StateFormatError } from "./errors.ts";
import type { Hash } from "./format.ts";
import { compareTails, footerSize, StateSums, stateLength, tailSize, unchecked } from "./tail.ts";

/** The checksums of 2 GiB of state. */
const mostHeld = 256 * 1024;

/**
 * QEMU's state and the checksums behind it, from a stream that tells no end: what could be the checksums is held back, so
 * that QEMU has its last byte only when all before it was right.
 */
export class BareStream {
  readonly #sums: StateSums;
  readonly #held = new Uint8Array(mostHeld);
  #count = 0;
  #released = 0;
  #whole: number | undefined;

  constructor(
    hash: Hash,
    /** Gets what is the state's for sure; `bytes` are overwritten afterwards. */
    private readonly release: (bytes: Uint8Array) => Promise<void>,
  ) {
    this.#sums = new StateSums(hash);
  }

  /** The state's length, once all of it is there, and right. */
  get whole(): number | undefined {
    return this.#whole;
  }

  /** @throws StateFormatError; what `release` throws */
  async add(part: Uint8Array): Promise<void> {
    for (let rest = part; rest.length > 0; ) {
      // Half of it goes at once: a byte of the console is not worth moving all others for.
      if (this.#count === mostHeld) await this.#let(mostHeld / 2);
      const taken = rest.subarray(0, mostHeld - this.#count);
      this.#held.set(taken, this.#count);
      this.#count += taken.length;
      rest = rest.subarray(taken.length);
    }
    const length = this.#length();
    if (length !== undefined) await this.#end(length);
  }

  /** To be called when nothing more comes. @throws StateFormatError unless all was there */
  finish(): void {
    if (this.#whole !== undefined) return;
    const size = this.#released + this.#count;
    stateLength(size, this.#footer());
    throw new StateFormatError("incomplete", size, unchecked);
  }

  #footer(): Uint8Array {
    return this.#held.subarray(Math.max(0, this.#count - footerSize), this.#count);
  }

  /** What looks like a footer may be the state's own; the end is where the length fits. */
  #length(): number | undefined {
    try {
      return stateLength(this.#released + this.#count, this.#footer());
    } catch {
      return undefined;
    }
  }

  async #end(length: number): Promise<void> {
    const rest = length - this.#released;
    if (rest < 0) {
      const most = `more than the ${mostHeld} that a console takes`;
      throw new StateFormatError("incomplete", length, `${tailSize(length)} bytes of checksums, ${most}`);
    }
    this.#sums.add(this.#held.subarray(0, rest));
    compareTails(length, this.#sums.tail(), this.#held.slice(rest, this.#count));
    await this.release(this.#held.subarray(0, rest));
    this.#whole = length;
  }

  async #let(count: number): Promise<void> {
    const bytes = this.#held.subarray(0, count);
    this.#sums.add(bytes);
    await this.release(bytes);
    this.#held.copyWithin(0, count, this.#count);
    this.#count -= count;
    this.#released += count;
  }
}
