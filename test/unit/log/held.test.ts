import { expect, test } from "vitest";
import { HeldLog } from "../../../agent/log/held.ts";
import { createLog, type Log } from "../../../agent/log/log.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";

function held() {
  const clock = new FakeClock();
  const lines: string[] = [];
  let loaded = 0;
  const log: Log = new HeldLog(clock, async () => {
    loaded++;
    return createLog(clock, { write: (line) => void lines.push(line) });
  });
  return { clock, lines, log, loaded: () => loaded };
}

test("holds lines with their time until somebody flushes", async () => {
  const { clock, lines, log, loaded } = held();
  log.info({ pid: 7 }, "early");
  log.debug({}, "for nobody");
  await clock.advance(1500);
  expect([loaded(), lines, log.recent]).toEqual([0, [], []]);
  await log.flush();
  log.info({}, "late");
  expect(lines).toEqual(["[    0.000] info  early (pid=7)", "[    1.500] info  late"]);
  expect(log.recent).toEqual(lines);
  expect(loaded()).toBe(1);
});

test.each(["warn", "error"] as const)("%s brings it about, with all that was said before", async (level) => {
  const { lines, log, loaded } = held();
  log.info({}, "first");
  log[level]({}, "second");
  log[level]({}, "third");
  await settle();
  expect(lines).toEqual([
    "[    0.000] info  first",
    `[    0.000] ${level.padEnd(5)} second`,
    `[    0.000] ${level.padEnd(5)} third`,
  ]);
  expect(loaded()).toBe(1);
});

test("what is configured counts for the lines held as well", async () => {
  const { lines, log } = held();
  log.debug({}, "wanted");
  log.configure({ level: "debug", format: "json" });
  await log.flush();
  log.configure({ level: "error", format: "human" });
  log.info({}, "unwanted");
  expect(lines).toEqual(['{"time":0,"level":"debug","msg":"wanted"}']);
});
