import type { Clock } from "../platform/port.ts";

/** Lines that may come at once, and how long it takes until one more may, in milliseconds. */
const burst = 60;
const refill = 60_000;

/**
 * How much of dom0's log one stub domain may have: it asks as often as it likes, and each answer is a line. Some 1,500 lines a
 * day.
 */
export class LogBudget {
  #credit = burst;
  #at: number;

  constructor(private readonly clock: Pick<Clock, "now">) {
    this.#at = clock.now();
  }

  /** `full`: log it; `last`: log it and that there is no more for now; `none`: do not. */
  take(): "full" | "last" | "none" {
    const now = this.clock.now();
    this.#credit = Math.min(burst, this.#credit + (now - this.#at) / refill);
    this.#at = now;
    if (this.#credit < 1) return "none";
    this.#credit -= 1;
    return this.#credit < 1 ? "last" : "full";
  }
}
