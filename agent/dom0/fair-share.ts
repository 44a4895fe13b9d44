/** What of each {@link window} the requests of one stub domain may take without a rest, in milliseconds. */
const share = 10_000;
const window = 60_000;
/** The longest rest before a request that nobody has taken up: a helper that says nothing for 3 s is taken for none. */
const longestRest = 1_000;
/** The longest rest before a transfer: a stub domain asks for five minutes at most, and a disk of dom0's that hung is not its fault. */
const longestOwed = 60_000;

/**
 * How much of dom0's time one stub domain may have: a hostile one could have it make disks, or read a state, again and again.
 * Once its share of a minute is used up, it waits after each request for as long as that took: what is more than
 * {@link longestRest} before its next transfer begins.
 */
export class FairShare {
  #start = Number.NEGATIVE_INFINITY;
  #used = 0;
  #rested = 0;

  /** A request that ended at `now` has taken so long. @returns how long the next is to wait, in milliseconds */
  rest(now: number, took: number): number {
    if (now - this.#start > window) {
      this.#start = now;
      this.#used = 0;
    }
    this.#used += took;
    if (this.#used <= share) return 0;
    this.#rested = Math.min(Math.max(this.#rested, now) + took, now + longestOwed);
    return Math.min(took, longestRest);
  }

  /** How long a transfer that is asked for at `now` is to wait, in milliseconds, its stub domain being told of it. */
  owed(now: number): number {
    return Math.max(0, this.#rested - now);
  }
}
