/** What a handful of runs says. Pure. */

/** Median and quartiles of some runs, in their unit. */
export interface Summary {
  /** As they were measured, in that order; at least one. */
  readonly runs: readonly number[];
  readonly median: number;
  /** First and third quartile; their distance is the spread. */
  readonly q1: number;
  readonly q3: number;
}

/** A quantile by linear interpolation between the two nearest (R's type 7); `share` from 0 to 1. */
export function quantile(values: readonly number[], share: number): number {
  if (values.length === 0) throw new RangeError("no quantile of nothing");
  const sorted = [...values].sort((a, b) => a - b);
  const at = share * (sorted.length - 1);
  const below = sorted[Math.floor(at)] ?? Number.NaN;
  const above = sorted[Math.ceil(at)] ?? Number.NaN;
  return below + (above - below) * (at - Math.floor(at));
}

export function summarize(runs: readonly number[]): Summary {
  for (const value of runs) {
    if (!Number.isFinite(value)) throw new RangeError(`a run of ${value}`);
  }
  return { runs, median: quantile(runs, 0.5), q1: quantile(runs, 0.25), q3: quantile(runs, 0.75) };
}

/** Distance of the quartiles as a share of the median; 0 for a median of 0. */
export function relativeSpread({ median, q1, q3 }: Summary): number {
  return median === 0 ? 0 : Math.abs((q3 - q1) / median);
}

/** What grows or shrinks how much with each step of x: least squares. */
export function slope(points: readonly (readonly [x: number, y: number])[]): number {
  const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [mx, my] = [mean(points.map(([x]) => x)), mean(points.map(([, y]) => y))];
  const over = points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0);
  const under = points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0);
  if (under === 0) throw new RangeError("no slope of fewer than two different places");
  return over / under;
}

export type Better = "less" | "more";

/**
 * How many times as costly: above 1 is worse, whether less or more of the measure is better. `undefined` when
 * one of them is 0 or below, of which no ratio tells anything.
 */
export function cost(value: number, reference: number, better: Better): number | undefined {
  if (value <= 0 || reference <= 0) return undefined;
  return better === "less" ? value / reference : reference / value;
}
