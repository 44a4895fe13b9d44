import type { Clock, Timer } from "../../agent/platform/port.ts";

interface Armed {
  readonly due: number;
  readonly order: number;
  readonly fire: () => void;
}

/** A clock that moves only when a test moves it. */
export class FakeClock implements Clock {
  readonly started = 0;
  #now = 0;
  #order = 0;
  readonly #armed = new Set<Armed>();

  now(): number {
    return this.#now;
  }

  roughly(): number {
    return this.#now;
  }

  setTimer(milliseconds: number, fire: () => void): Timer {
    const armed: Armed = { due: this.#now + Math.max(0, milliseconds), order: this.#order++, fire };
    this.#armed.add(armed);
    return { cancel: () => void this.#armed.delete(armed) };
  }

  /** Timers that would still fire: 0 where an idle program must not be woken. */
  get pending(): number {
    return this.#armed.size;
  }

  /**
   * Moves time forward, firing what falls due in order. Promises settle before, between and after the
   * timers, so that what one wakes is seen by the next.
   */
  async advance(milliseconds: number): Promise<void> {
    const end = this.#now + milliseconds;
    await settle();
    for (;;) {
      const next = [...this.#armed]
        .filter((timer) => timer.due <= end)
        .sort((a, b) => a.due - b.due || a.order - b.order)[0];
      if (next === undefined) break;
      this.#armed.delete(next);
      this.#now = Math.max(this.#now, next.due);
      next.fire();
      await settle();
    }
    this.#now = end;
  }
}

/** Lets every promise that can settle without time passing do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
