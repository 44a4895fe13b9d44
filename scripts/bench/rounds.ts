/** The rounds of a benchmark, in which a run may break, and its end, which may come early. */
import { setTimeout as delay } from "node:timers/promises";
import { progress } from "../../bundler/progress.ts";
import { EmulatorFault } from "../lab/errors.ts";
import type { Group } from "./measures.ts";
import {
  type Bench,
  clearUp,
  markBroken,
  markNever,
  measureDensity,
  measureOnce,
  measureSave,
  measureScreen,
  prepare,
  type Undo,
} from "./measuring.ts";
import { neverStarted } from "./minios.ts";
import { reasonOf } from "./reason.ts";
import { Recorder } from "./results.ts";
import type { VariantName } from "./variants.ts";

export const MADE_AGAIN = "the emulator's fault, made again";

/** What is measured in a guest, or guests, of its own. */
export interface Part {
  readonly name: string;
  readonly groups: readonly Group[];
  /** In the first round alone. */
  readonly once?: boolean;
  readonly measure: (bench: Bench, variant: VariantName, round: number) => Promise<void>;
}

const PARTS: readonly Part[] = [
  {
    name: "",
    groups: ["resources", "idle", "start", "access", "disk", "network"],
    measure: measureOnce,
  },
  { name: ", its screen", groups: ["screen"], measure: measureScreen },
  { name: ", saving", groups: ["save"], measure: measureSave },
  // Once is enough: a slope over four points has its own check.
  { name: ", several guests", groups: ["density"], once: true, measure: measureDensity },
];

/**
 * A run that broke is named in the results, and what it did not come to is marked with the reason; so is all after it when
 * the host has gone. One in which the emulated processor killed the guest is made again, once, and named as well.
 *
 * @returns what broke it
 */
async function attemptOnce(
  bench: Bench,
  what: string,
  variant: VariantName,
  groups: readonly Group[],
  work: (bench: Bench) => Promise<void>,
  again = true,
): Promise<unknown> {
  const recorder = new Recorder();
  try {
    await progress.step(what, () => work({ ...bench, recorder }));
    bench.recorder.take(recorder);
    return undefined;
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    const reason = reasonOf(error);
    const emulator = error instanceof EmulatorFault;
    const kind = emulator ? (again ? MADE_AGAIN : "the emulator's fault") : "failed";
    bench.recorder.trouble(`${what}: ${kind}: ${reason}`);
    progress.note(`${what}: ${text}`);
    await clearUp(bench.host).catch(() => {});
    if (emulator && again) return attemptOnce(bench, what, variant, groups, work, false);
    markBroken(bench, variant, groups, `${kind}: ${reason}`);
    // What was measured before it broke is as good as any, and what it knew to be missing has a reason of its own.
    bench.recorder.take(recorder);
    return error;
  }
}

/** Milliseconds that the round under way has to end when it is interrupted. */
const LAST_ROUND = 60_000;
const INTERRUPTIONS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

function endAtOnce(name: NodeJS.Signals): void {
  console.error(`bench: ended by ${name}, nothing was measured`);
  process.exit(2);
}

/** Until there is something to take back. */
export function endAtOnceWhenInterrupted(): void {
  for (const name of INTERRUPTIONS) process.on(name, endAtOnce);
}

/**
 * Ctrl-C and its like: rejects when the first of them comes. The run ends then, and takes back what is in dom0. Further ones
 * change nothing: what is taken back by halves stays.
 */
function interruption(): { readonly signal: AbortSignal; readonly comes: Promise<never> } {
  const controller = new AbortController();
  const comes = new Promise<never>((_, reject) => {
    for (const name of INTERRUPTIONS)
      process.off(name, endAtOnce).on(name, () => {
        const reason = new Error(`ended by ${name}`);
        controller.abort(reason);
        reject(reason);
      });
  });
  comes.catch(() => {});
  return { signal: controller.signal, comes };
}

/**
 * @param keep is called whenever there is more to keep, with the reason why it may be all; last of all on the way out where
 *   the run ends early
 */
export async function measureAll(
  bench: Bench,
  variants: readonly VariantName[],
  order: readonly (readonly VariantName[])[],
  keep: (ended: string) => void,
  parts: readonly Part[] = PARTS,
): Promise<void> {
  const { signal, comes } = interruption();
  const undo: Undo = [];
  let begun = false;
  const measure = async (): Promise<void> => {
    await progress.step("images into dom0", () => prepare(bench, variants, undo));
    signal.throwIfAborted();
    begun = true;
    const measured = (): void => keep("ended before all was measured");
    await measureRounds(bench, variants, order, measured, signal, parts);
  };
  const measuring = measure();
  try {
    await Promise.race([measuring, comes]);
  } catch (error) {
    // The host may have gone. A round whose guest is taken away ends by itself, and what it has in dom0, the helper say.
    if (signal.aborted) {
      await clearUp(bench.host).catch(() => {});
      await Promise.race([measuring.catch(() => {}), delay(LAST_ROUND)]);
      await clearUp(bench.host).catch(() => {});
    }
    if (begun) keep(`ended before all was measured: ${reasonOf(error)}`);
    throw error;
  } finally {
    for (const step of undo.reverse()) await step().catch(() => {});
  }
}

async function measureRounds(
  bench: Bench,
  variants: readonly VariantName[],
  order: readonly (readonly VariantName[])[],
  measured: () => void,
  signal: AbortSignal,
  parts: readonly Part[],
): Promise<void> {
  for (const variant of variants) markNever(bench, variant);
  /** Why MiniOS is not waited for again. */
  let silent: string | undefined;
  let heard = false;
  for (const [index, round] of order.entries()) {
    for (const variant of round) {
      const what = `round ${index + 1} of ${order.length}: ${variant}`;
      for (const { name, groups, once = false, measure } of parts) {
        const own = groups.filter((group) => bench.settings.groups.includes(group));
        if (own.length === 0 || (once && index > 0)) continue;
        signal.throwIfAborted();
        if (variant === "minios" && silent !== undefined) {
          markBroken(bench, variant, own, silent);
          continue;
        }
        const broke = await attemptOnce(bench, `${what}${name}`, variant, own, (run) =>
          measure(run, variant, index),
        );
        if (variant !== "minios") continue;
        heard ||= broke === undefined;
        if (!heard && neverStarted(broke)) silent = `not tried again: ${reasonOf(broke)}`;
      }
      measured();
    }
  }
}
