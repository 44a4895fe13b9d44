import { expect, test } from "vitest";
import { FairShare } from "../../../agent/dom0/fair-share.ts";

test("an ordinary save waits for nothing", () => {
  const share = new FairShare();
  const rests = [100, 30, 30, 2500].map((took, i) => share.rest(1000 * i, took));
  expect(rests).toEqual([0, 0, 0, 0]);
});

test("who has had ten seconds of a minute waits as long again each time, one second at most, until the next", () => {
  const share = new FairShare();
  expect(share.rest(10_000, 10_000)).toBe(0);
  expect(share.rest(10_500, 500)).toBe(500);
  expect(share.rest(20_000, 9_000)).toBe(1_000);
  expect(share.rest(70_000, 500)).toBe(500);
  expect(share.rest(70_001, 500)).toBe(0);
});

test("what is more than that is owed before the next transfer, whatever is asked in between", () => {
  const share = new FairShare();
  share.rest(9_000, 9_000);
  expect(share.owed(9_000)).toBe(0);
  share.rest(20_000, 9_000);
  expect(share.owed(22_000)).toBe(7_000);
  share.rest(23_000, 500);
  expect(share.owed(23_000)).toBe(6_500);
  expect(share.owed(40_000)).toBe(0);
});

test("a minute at most is owed: a request of five may have been dom0's disk, which hung", () => {
  const share = new FairShare();
  share.rest(300_000, 300_000);
  expect(share.owed(300_000)).toBe(60_000);
});
