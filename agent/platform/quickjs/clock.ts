import * as native from "stubdom-native";
import type { Clock } from "../port.ts";

interface Entry {
  readonly deadline: number;
  readonly fire: () => void;
  live: boolean;
}

/**
 * Timers over the event loop's one deadline. The list is kept in order of deadline; it holds a handful of
 * entries at the most, and none while the agent is idle, so that an idle agent never wakes.
 */
export function createClock(): Clock {
  const entries: Entry[] = [];
  const arm = () => native.armTimer(entries[0]?.deadline ?? -1);

  native.onTimer(() => {
    const now = native.now();
    const due = entries.findIndex((entry) => entry.deadline > now);
    const fired = entries.splice(0, due < 0 ? entries.length : due);
    arm();
    for (const entry of fired) {
      if (!entry.live) continue;
      entry.live = false;
      try {
        entry.fire();
      } catch (error) {
        // One broken timer must not swallow the others that are due: it surfaces as an uncaught error.
        void Promise.reject(error);
      }
    }
  });

  return {
    started: native.started(),
    now: native.now,
    roughly: native.roughly,
    setTimer(milliseconds, fire) {
      const entry = { deadline: native.now() + milliseconds, fire, live: true };
      // From the end, where most belong.
      let place = entries.length;
      while (place > 0 && (entries[place - 1] as Entry).deadline > entry.deadline) place--;
      entries.splice(place, 0, entry);
      if (place === 0) arm();
      return {
        cancel() {
          entry.live = false;
          const index = entries.indexOf(entry);
          if (index < 0) return;
          entries.splice(index, 1);
          if (index === 0) arm();
        },
      };
    },
  };
}
