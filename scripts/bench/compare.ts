/** What has changed between two results. Pure. */
import { MEASURES, type Measure } from "./measures.ts";
import { describedIn, isAbsent, type Results } from "./results.ts";
import { cost, relativeSpread, type Summary } from "./statistics.ts";
import { shortNumber } from "./table.ts";
import { VARIANT_NAMES, type VariantName } from "./variants.ts";

/** Where instructions are counted; five boots of the same differed by 0.3 % (BENCHMARKS.md). */
export const COUNTED_TOLERANCE = 0.01;
/** Elsewhere the least that is told from noise, whatever the spread of some runs says. */
const timedTolerance = 0.1;
/** Fewer runs have no spread to speak of: the rounds of one run, split into two files, differed by up to 1.7. */
const fewRuns = 3;
const fewRunsTolerance = 1;

export interface Change {
  readonly id: string;
  readonly variant: VariantName;
  readonly unit: string;
  readonly before: Summary;
  readonly after: Summary;
  /** New over old: above 1 is worse. */
  readonly cost: number;
  /** The share by which it may differ: the sum of both spreads, and never less than the kind of clock allows. */
  readonly tolerance: number;
  /** `unsure`: it moved by more than what is told from noise elsewhere, but not by more than it may here. */
  readonly verdict: "worse" | "better" | "unsure" | "same";
}

export interface Comparison {
  readonly changes: readonly Change[];
  /** What only one of the two has, and is no loss: `access.port of minios: not measured before`; and what nobody knows here. */
  readonly missing: readonly string[];
  /** What there was and should be, but is not, or is nothing now; and what there was nothing of, but should not be. As bad as worse. */
  readonly lost: readonly string[];
  /** Why the two may not be comparable at all, one sentence each. */
  readonly warnings: readonly string[];
}

/**
 * @param countedTolerance the share by which what is counted may differ
 * @throws RangeError where one of the two was counted and the other by the clock: a nanosecond is not the same in both
 */
export function compare(
  before: Results,
  after: Results,
  countedTolerance: number = COUNTED_TOLERANCE,
): Comparison {
  const changes: Change[] = [];
  const missing: string[] = [];
  const lost: string[] = [];
  const among = (setting: string, value: string) =>
    String(after.settings[setting] ?? value)
      .split(",")
      .includes(value);
  const wanted = ({ id, group }: Measure, variant: VariantName): boolean => {
    const guests = /^density\.\w+-(\d+)$/.exec(id)?.[1];
    return (
      after.variants.includes(variant) &&
      among("groups", group) &&
      (guests === undefined || among("density", guests))
    );
  };
  sameClock(before, after.host.icount);
  const counted = after.host.icount;
  for (const each of MEASURES) {
    const { id, better, counted: countable, step } = each;
    const [{ title }, { title: newTitle, unit }] = [describedIn(before, each), describedIn(after, each)];
    if (title !== newTitle) {
      missing.push(`${id}: "${title}" before, "${newTitle}" now, not compared`);
      continue;
    }
    for (const variant of VARIANT_NAMES) {
      const [old, now] = [before.figures[id]?.[variant], after.figures[id]?.[variant]];
      const [had, has] = [old !== undefined && !isAbsent(old), now !== undefined && !isAbsent(now)];
      if (had !== has)
        (had && wanted(each, variant) ? lost : missing).push(
          `${id} of ${variant}: ${had ? "not measured now" : "not measured before"}`,
        );
      if (old === undefined || now === undefined || isAbsent(old) || isAbsent(now)) continue;
      const ratio = cost(now.median, old.median, better);
      // From nothing to nothing is no change; from nothing to something, or back, has no ratio and is told as it is.
      if (ratio === undefined) {
        const worse = better === "more" ? old.median > 0 : old.median === 0 && now.median > 0;
        if (now.median !== old.median)
          (worse ? lost : missing).push(`${id} of ${variant}: ${old.median} before, ${now.median} now`);
        continue;
      }
      const exact = counted && (countable || step !== undefined);
      const few = Math.min(old.runs.length, now.runs.length) < fewRuns;
      const least = step === undefined ? countedTolerance : step / Math.min(old.median, now.median);
      const floor = exact ? least : few ? fewRunsTolerance : timedTolerance;
      const noise = exact ? 0 : relativeSpread(old) + relativeSpread(now);
      const tolerance = Math.max(floor, noise);
      const beyond = (share: number) => ratio > 1 + share || ratio < 1 / (1 + share);
      const told = ratio > 1 ? "worse" : "better";
      const verdict = beyond(tolerance) ? told : beyond(timedTolerance) ? "unsure" : "same";
      changes.push({ id, variant, unit, before: old, after: now, cost: ratio, tolerance, verdict });
    }
  }
  for (const id of new Set([...Object.keys(before.figures), ...Object.keys(after.figures)]))
    if (!MEASURES.some((each) => each.id === id)) missing.push(`${id}: this version knows no such measure`);
  return { changes, missing, lost, warnings: warningsOf(before, after) };
}

/** @throws RangeError as {@link compare} does: to be known before anything is measured */
export function sameClock(before: Results, icount: boolean): void {
  const said = (counted: boolean) => (counted ? "counted instructions (--icount)" : "time by the clock");
  if (before.host.icount !== icount)
    throw new RangeError(
      `--compare: the results of ${before.made.slice(0, 10)} are ${said(before.host.icount)}, these are ${said(icount)}; ${icount ? "leave out" : "add"} --icount, or compare with others`,
    );
}

function warningsOf(before: Results, after: Results): string[] {
  const warnings: string[] = [];
  const differ = (what: string, old: unknown, now: unknown): void => {
    if (old !== now) warnings.push(`${what} differs: ${String(old)} before, ${String(now)} now`);
  };
  for (const key of ["kind", "xen", "dom0", "machine"] as const) {
    differ(`host.${key}`, before.host[key], after.host[key]);
  }
  for (const key of new Set([...Object.keys(before.settings), ...Object.keys(after.settings)])) {
    differ(`settings.${key}`, before.settings[key], after.settings[key]);
  }
  return warnings;
}

/** The comparison as text: what is worse first, what is the same as a number alone. */
export function comparisonText({ changes, missing, lost, warnings }: Comparison): string {
  const lines: string[] = warnings.map((warning) => `! ${warning}`);
  const those = (verdict: Change["verdict"]) => changes.filter((change) => change.verdict === verdict);
  for (const verdict of ["worse", "better", "unsure"] as const) {
    const found = those(verdict);
    found.sort((a, b) => Math.abs(Math.log(b.cost)) - Math.abs(Math.log(a.cost)));
    for (const { id, variant, unit, before, after, cost: ratio, tolerance } of found) {
      const factor = `${ratio > 1 ? "worse" : "better"} by ${Math.max(ratio, 1 / ratio).toFixed(2)}`;
      lines.push(
        `${verdict === "unsure" ? "unsure, " : ""}${factor}: ${id} of ${variant}, ${shortNumber(before.median)} to ${shortNumber(after.median)} ${unit} (runs ${before.runs.length} and ${after.runs.length}, tolerance ${(100 * tolerance).toFixed(0)} %)`,
      );
    }
  }
  for (const each of lost) lines.push(`lost: ${each}`);
  for (const each of missing) lines.push(`- ${each}`);
  const unsure = those("unsure").length;
  lines.push(
    `${those("same").length + unsure} of ${changes.length} figures are the same within their tolerance${unsure > 0 ? `, ${unsure} of them unsure` : ""}`,
  );
  return lines.join("\n");
}
