import * as native from "stubdom-native";
import {
  close,
  done,
  equal,
  errno,
  freshFile,
  type Group,
  holds,
  list,
  ready,
  refusals,
  sleep,
  text,
  throws,
} from "../harness.ts";

const nothing = () => {};

export const eventLoopTests: Record<string, Group> = {
  watch: {
    ...refusals("watch", native.watch, "descriptor", "integer"),
    "a direction that there is not": () => {
      for (const direction of [0, 3, -1]) equal(native.watch(0, direction as 1, nothing), errno.EBADF);
    },
    "a descriptor beyond the table": () => equal(native.watch(4096, 1, nothing), errno.EBADF),
    "a descriptor that cannot be waited for": () => {
      const fd = freshFile();
      equal(native.watch(fd, 1, nothing), errno.EPERM);
      close(fd);
    },
    "what is not a function ends the watch": () => {
      const [a, b] = list(native.socketPair());
      done(native.watch(a, 1, nothing));
      done(native.watch(a, 1, 5 as unknown as null));
      done(native.watch(a, 1, null));
      close(a, b);
    },
    "readiness both ways, and again after it": async () => {
      const [a, b] = list(native.socketPair());
      await ready(a, 2);
      native.write(a, text("x"));
      await ready(b);
      await ready(b);
      close(a, b);
    },
    "a handler may replace and remove itself and others": async () => {
      const [a, b] = list(native.socketPair());
      const [c, d] = list(native.socketPair());
      native.write(b, text("x"));
      native.write(d, text("x"));
      let calls = 0;
      await new Promise<void>((resolve) => {
        const first = () => {
          calls++;
          for (const fd of [a, c]) done(native.watch(fd, 1, null));
          close(a, b);
          // The number is used again at once: the old event must not reach the new handler.
          const [e, f] = list(native.socketPair());
          done(native.watch(e, 1, () => calls++));
          sleep(20).then(() => {
            done(native.watch(e, 1, null));
            close(c, d, e, f);
            resolve();
          });
        };
        done(native.watch(a, 1, first));
        done(native.watch(c, 1, first));
      });
      equal(calls, 1);
    },
    "a closed descriptor can be forgotten": () => {
      const [a, b] = list(native.socketPair());
      done(native.watch(a, 1, nothing));
      close(a, b);
      equal(native.watch(a, 1, null), 0);
    },
    "hundreds at once": async () => {
      const pairs = Array.from({ length: 300 }, () => list(native.socketPair()));
      let heard = 0;
      const all = Promise.all(pairs.map(([a]) => ready(a).then(() => heard++)));
      for (const [, b] of pairs) native.write(b, text("x"));
      await all;
      equal(heard, 300);
      for (const pair of pairs) close(...pair);
    },
  },
  armTimer: {
    ...refusals("armTimer", native.armTimer, "integer"),
    "fires once, not early": async () => {
      const started = native.now();
      await sleep(20);
      holds(native.now() - started >= 20, "20 ms have passed");
    },
    "none, past, far": async () => {
      for (const deadline of [-1, Number.NaN, 0]) {
        native.armTimer(deadline);
        native.armTimer(-1);
      }
      native.armTimer(Number.MAX_VALUE);
      await sleep(1);
    },
  },
  onTimer: {
    "needs a function": () => {
      for (const wrong of [undefined, null, 5, {}, "f"]) throws(() => native.onTimer(wrong as () => void));
    },
    "is replaced": () => {
      native.onTimer(nothing);
      native.onTimer(nothing);
    },
  },
  onUncaught: {
    "needs a function": () => throws(() => native.onUncaught(5 as unknown as () => void)),
    "hears what handlers throw and promises reject": async () => {
      const heard: string[] = [];
      native.onUncaught((error) => void heard.push(String(error)));
      await new Promise<void>((resolve) => {
        native.onTimer(() => {
          resolve();
          throw new Error("thrown");
        });
        native.armTimer(0);
      });
      void Promise.reject(new Error("rejected"));
      Promise.reject(new Error("handled")).catch(nothing);
      const late = Promise.reject(new Error("handled later"));
      await Promise.resolve();
      late.catch(nothing);
      await sleep(1);
      equal(heard, ["Error: thrown", "Error: rejected"]);
    },
    "may itself throw": async () => {
      native.onUncaught(() => {
        throw new Error("the hook's own, printed");
      });
      void Promise.reject(new Error("printed"));
      await sleep(1);
    },
  },
  now: {
    "goes forward": () => {
      const before = native.now();
      holds(native.now() >= before && before > 0, "later is later");
    },
  },
  roughly: {
    "goes forward with the time, some 10 ms behind": async () => {
      const before = native.roughly();
      await sleep(50);
      const passed = native.roughly() - before;
      holds(before > 0 && passed >= 30, "50 ms have passed");
    },
  },
  started: {
    "is in the past": () =>
      holds(native.started() > 0 && native.started() < native.now(), "entered before now"),
  },
  wallClock: { "is this century": () => holds(native.wallClock() > 1.6e12, "after 2020") },
};
