import { expect, test } from "vitest";
import { LogBudget } from "../../../agent/dom0/log-budget.ts";
import { FakeClock } from "../../fakes/clock.ts";

test("sixty lines at once, then one a minute, and its end is told", async () => {
  const clock = new FakeClock();
  const budget = new LogBudget(clock);
  const take = (times: number) => Array.from({ length: times }, () => budget.take());
  expect(take(59)).toEqual(new Array(59).fill("full"));
  expect(take(3)).toEqual(["last", "none", "none"]);
  await clock.advance(60_000);
  expect(take(2)).toEqual(["last", "none"]);
  await clock.advance(10 * 60_000);
  expect(take(11)).toEqual([...new Array(9).fill("full"), "last", "none"]);
});
