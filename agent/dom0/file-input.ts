import type { Platform } from "../platform/port.ts";

/** Bytes that are read at a time. */
const step = 256 * 1024;

/** A file from its start to its end, or to `end`. */
export class FileInput {
  #position = 0;

  constructor(
    private readonly platform: Platform,
    private readonly fd: number,
    private readonly end = Number.POSITIVE_INFINITY,
  ) {}

  /** The first bytes, without taking them. */
  async peek(): Promise<Uint8Array> {
    const start = new Uint8Array(16);
    return start.subarray(0, await this.platform.storage.readAt(this.fd, start, this.#position));
  }

  /** All of `into`; less only at the end. */
  async take(into: Uint8Array): Promise<number> {
    let taken = 0;
    for (;;) {
      const wanted = Math.min(into.length - taken, step, this.end - this.#position);
      if (wanted === 0) return taken;
      const room = into.subarray(taken, taken + wanted);
      const count = await this.platform.storage.readAt(this.fd, room, this.#position);
      this.#position += count;
      taken += count;
      if (count < wanted) return taken;
    }
  }
}
