import { describe, expect, test } from "vitest";
import { cost, quantile, relativeSpread, slope, summarize } from "../../../scripts/bench/statistics.ts";

describe("quantiles", () => {
  // R: quantile(c(...), type = 7)
  test.each([
    [[3], 0.5, 3],
    [[1, 2], 0.5, 1.5],
    [[5, 1, 3], 0.5, 3],
    [[4, 1, 3, 2], 0.25, 1.75],
    [[4, 1, 3, 2], 0.75, 3.25],
    [[10, 20, 30, 40, 50], 0.25, 20],
    [[10, 20, 30, 40, 50], 0, 10],
    [[10, 20, 30, 40, 50], 1, 50],
  ])("%j at %d is %d", (values, share, expected) => {
    const before = [...values];
    expect(quantile(values, share)).toBeCloseTo(expected, 12);
    expect(values).toEqual(before);
  });

  test("of nothing are refused, as are runs that are no numbers", () => {
    expect(() => quantile([], 0.5)).toThrow(RangeError);
    expect(() => summarize([])).toThrow(RangeError);
    expect(() => summarize([1, Number.NaN])).toThrow(RangeError);
    expect(() => summarize([Number.POSITIVE_INFINITY])).toThrow(RangeError);
  });
});

test("a summary keeps the runs in their order", () => {
  expect(summarize([3, 1, 2])).toEqual({ runs: [3, 1, 2], median: 2, q1: 1.5, q3: 2.5 });
  expect(relativeSpread(summarize([3, 1, 2]))).toBe(0.5);
  expect(relativeSpread(summarize([0, 0]))).toBe(0);
});

test("cost: above 1 is worse, whichever way is better", () => {
  expect(cost(20, 10, "less")).toBe(2);
  expect(cost(20, 10, "more")).toBe(0.5);
  expect(cost(5, 10, "more")).toBe(2);
  for (const [value, reference] of [
    [0, 1],
    [1, 0],
    [-1, 1],
  ] as const)
    expect(cost(value, reference, "less")).toBeUndefined();
});

test("a slope", () => {
  expect(
    slope([
      [1, 5],
      [2, 7],
      [4, 11],
      [8, 19],
    ]),
  ).toBeCloseTo(2, 12);
  expect(() => slope([[1, 5]])).toThrow(RangeError);
  expect(() =>
    slope([
      [1, 5],
      [1, 6],
    ]),
  ).toThrow(RangeError);
});
