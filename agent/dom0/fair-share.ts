/** What of each {@link window} the requests of one stub domain may take without a rest, and the longest rest; in milliseconds. */
const share = 10_000;
const window = 60_000;
const longestRest = 1_000;

/**
 * How much of dom0's time one stub domain may have: a hostile one could have it make disks, or read a state, again and again.
 * Once its share of a minute is used up, it waits after each request for as long as that took.
 */
export class FairShare {
  #start = Number.NEGATIVE_INFINITY;
  #used = 0;

  /** A request that ended at `now` has taken so long. @returns how long the next is to wait, in milliseconds */
  rest(now: number, took: number): number {
    if (now - this.#start > window) {
      this.#start = now;
      this.#used = 0;
    }
    this.#used += took;
    return this.#used > share ? Math.min(took, longestRest) : 0;
  }
}
