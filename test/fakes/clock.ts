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

/** The machine's clock, which can be made to run faster: patience then ends sooner, that of timers too which run already. */
export class RealClock implements Clock {
  readonly started = 0;
  #speed = 1;
  /** The time of this clock at a time of the machine's. */
  #since = { own: 0, real: 0 };
  readonly #timers = new Set<{ readonly due: number; readonly fire: () => void; handle: NodeJS.Timeout }>();

  now(): number {
    const { own, real } = this.#since;
    return own + (performance.now() - real) * this.#speed;
  }

  roughly(): number {
    return this.now();
  }

  setTimer(milliseconds: number, fire: () => void): Timer {
    const timer = {
      due: this.now() + milliseconds,
      fire: () => {
        this.#timers.delete(timer);
        fire();
      },
      handle: setTimeout(() => timer.fire(), milliseconds / this.#speed),
    };
    this.#timers.add(timer);
    return {
      cancel: () => {
        clearTimeout(timer.handle);
        this.#timers.delete(timer);
      },
    };
  }

  /** So many times as fast from now on. */
  run(speed: number): void {
    this.#since = { own: this.now(), real: performance.now() };
    this.#speed = speed;
    for (const timer of this.#timers) {
      clearTimeout(timer.handle);
      timer.handle = setTimeout(timer.fire, Math.max(0, timer.due - this.now()) / speed);
    }
  }
}

/** Lets every promise that can settle without time passing do so. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** As many turns as it takes where a store in memory is asked, and nothing has a timer. */
export async function quiet(): Promise<void> {
  for (let turn = 0; turn < 60; turn++) await settle();
}
