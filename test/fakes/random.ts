/**
 * Seeded pseudo-random numbers (mulberry32): a test that splits its input at random does so in the same
 * places on every run, and a failure is repeated by its seed.
 */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 2^32). */
  uint32(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  }

  /** Uniform integer in [low, high], both included. */
  between(low: number, high: number): number {
    return low + (this.uint32() % (high - low + 1));
  }
}
