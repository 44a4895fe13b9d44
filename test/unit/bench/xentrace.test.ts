import { expect, it } from "vitest";
import { wakeUps } from "../../../scripts/bench/xentrace.ts";

const TIME = [0x1234, 0x5678];

/** A record, with a time stamp unless told otherwise. */
function record(event: number, extra: readonly number[], timed = true): number[] {
  const header = event + extra.length * 2 ** 28 + (timed ? 2 ** 31 : 0);
  return [header, ...(timed ? TIME : []), ...extra];
}

const trace = (...records: readonly number[][]) => new Uint8Array(Uint32Array.from(records.flat()).buffer);
const of = (domid: number, vcpu = 0) => domid * 65536 + vcpu;

it("counts what goes from blocked to runnable, for each domain", () => {
  const found = wakeUps(
    trace(
      record(0x1f003, [0, 64], false), // what follows is processor 0's
      record(0x21211, [of(0)]),
      record(0x21101, [of(5)]), // runnable to running
      record(0x21211, [of(5)]),
      record(0x1f003, [1, 32], false),
      record(0x21211, [of(5, 1)]),
      record(0x21021, [of(5)]), // running to blocked
      record(0x21211, [of(0x7fef)]),
    ),
  );
  expect([...found]).toEqual([
    [0, 1],
    [5, 2],
    [0x7fef, 1],
  ]);
});

it("takes a trace that ends within a record as far as it goes", () => {
  const whole = trace(record(0x21211, [of(5)]), record(0x21211, [of(5)]));
  for (let cut = 1; cut <= 16; cut++) expect(wakeUps(whole.slice(0, -cut)).get(5)).toBe(1);
});

it("counts nothing where records are missing", () => {
  expect(() => wakeUps(trace(record(0x1f001, [1, 2, 3, 4])))).toThrow(/lost records/);
});
