/** `npm run bench`: what the stub domain costs and how fast it is, beside other ways to emulate the same devices. */

import { existsSync, readFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { capture } from "../../bundler/exec.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { progress } from "../../bundler/progress.ts";
import { EmulatorFault } from "../lab/errors.ts";
import { LabHost } from "../lab/host.ts";
import { LocalHost } from "../lab/local.ts";
import type { XenHost } from "../lab/xen-host.ts";
import { COUNTED_TOLERANCE, compare, comparisonText, sameClock } from "./compare.ts";
import { GROUPS, type Group } from "./measures.ts";
import {
  type Bench,
  clearUp,
  drawingDisk,
  markBroken,
  markNever,
  measureDensity,
  measureOnce,
  measureSave,
  measureScreen,
  measuringDisk,
  prepare,
} from "./measuring.ts";
import type { Minios } from "./minios.ts";
import { writeAll } from "./output.ts";
import { xlInfo } from "./readings.ts";
import { reasonOf } from "./reason.ts";
import { type HostFacts, parseResults, Recorder, type Results } from "./results.ts";
import { settingsOf } from "./settings.ts";
import { markdown } from "./table.ts";
import { CHOICES, interleaved, type VariantName } from "./variants.ts";

const USAGE = `usage: npm run bench -- [options]

Measures a guest whose devices are emulated by QEMU in dom0, in our stub domain, in the same stub domain with a
shell script for process 1, and in MiniOS if there is one. Needs dist/ (npm run build). Leaves results.json,
table.md and a picture a group, as SVG and PNG, in dist/bench; docs/bench.md explains them.

  --quick             less of everything, ten minutes on the emulated host
  --runs N            rounds (default 5, 1 with --quick or --icount)
  --only GROUP,...    of ${Object.keys(GROUPS).join(", ")}
  --variants NAME,... of dom0, linux-stubdom, shell-stubdom, minios; dom0 is what the others are compared with
  --choices           our own settings beside others (joint of the NIC, disk) in place of the shell script
  --minios FILE       an ioemu-stubdom.gz that fits the host's Xen
  --minios-hvmloader FILE   for MiniOS' guests; needed where the host's own hvmloader has no ROMBIOS, as Debian's
  --host lab|local    the emulated host (default), or this machine's own Xen, as root
  --xen WORDS         further words for the emulated Xen's command line, such as clocksource=tsc
  --icount            emulated time follows executed instructions: slow, and the same figures each time, within 1 %
  --compare OLD.json  what has changed since; status 1 if something is worse beyond its tolerance, or is no more
  --tolerance PERCENT of what is counted (default 1)
  --from FILE         measures nothing: table, pictures and comparison of results made before
  --output DIRECTORY  instead of dist/bench
  --help`;

async function facts(host: XenHost, kind: HostFacts["kind"], icount: boolean): Promise<HostFacts> {
  const info = (await host.run("xl info")).stdout;
  const { stdout: qemu } = await host.run(
    "/usr/libexec/xen-qemu-system-i386 --version 2> /dev/null || /usr/lib/xen-*/bin/qemu-system-i386 --version 2> /dev/null || qemu-system-i386 --version",
    { accept: "any" },
  );
  const processors = cpus();
  return {
    kind,
    xen: `Xen ${xlInfo(info, "xen_version")}`,
    dom0: `Linux ${xlInfo(info, "release")}, ${qemu.split("\n")[0]?.replace(/ \(.*/, "") || "QEMU unknown"}`,
    machine: `${processors[0]?.model ?? "unknown processor"}, ${processors.length} cores`,
    icount,
  };
}

const MADE_AGAIN = "the emulator's fault, made again";

/**
 * A run that broke is named in the results, and what it did not come to is marked with the reason; so is all after it when
 * the host has gone. One in which the emulated processor killed the guest is made again, once, and named as well.
 */
async function attemptOnce(
  bench: Bench,
  what: string,
  variant: VariantName,
  groups: readonly Group[],
  work: (bench: Bench, variant: VariantName) => Promise<void>,
  again = true,
): Promise<void> {
  const recorder = new Recorder();
  try {
    await progress.step(what, () => work({ ...bench, recorder }, variant));
    bench.recorder.take(recorder);
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
  }
}

/** Milliseconds that the round under way has to end when it is interrupted. */
const LAST_ROUND = 60_000;
const INTERRUPTIONS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Until there is something to take back. */
const endAtOnce = (): void => process.exit(2);
for (const name of INTERRUPTIONS) process.on(name, endAtOnce);

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

async function measureAll(
  bench: Bench,
  variants: readonly VariantName[],
  order: readonly (readonly VariantName[])[],
  measured: () => void,
): Promise<void> {
  const finish = await progress.step("images into dom0", () => prepare(bench, variants));
  const { signal, comes } = interruption();
  const rounds = measureRounds(bench, variants, order, measured, signal);
  try {
    await Promise.race([rounds, comes]);
  } finally {
    // The host may have gone. A round whose guest is taken away ends by itself, and what it has in dom0, the helper say.
    if (signal.aborted) {
      await clearUp(bench.host).catch(() => {});
      await Promise.race([rounds.catch(() => {}), delay(LAST_ROUND)]);
      await clearUp(bench.host).catch(() => {});
    }
    await finish().catch(() => {});
  }
}

async function measureRounds(
  bench: Bench,
  variants: readonly VariantName[],
  order: readonly (readonly VariantName[])[],
  measured: () => void,
  signal: AbortSignal,
): Promise<void> {
  const { settings } = bench;
  const attempt = (...words: Parameters<typeof attemptOnce>): Promise<void> => {
    signal.throwIfAborted();
    return attemptOnce(...words);
  };
  for (const variant of variants) markNever(bench, variant);
  // The others have guests of their own.
  const single = settings.groups.filter((group) => !["density", "screen", "save"].includes(group));
  for (const [index, round] of order.entries()) {
    for (const variant of round) {
      const what = `round ${index + 1} of ${order.length}: ${variant}`;
      if (single.length > 0)
        await attempt(bench, what, variant, single, (run) => measureOnce(run, variant, index));
      if (settings.groups.includes("screen"))
        await attempt(bench, `${what}, its screen`, variant, ["screen"], measureScreen);
      if (settings.groups.includes("save"))
        await attempt(bench, `${what}, saving`, variant, ["save"], measureSave);
      // Once is enough: a slope over four points has its own check.
      if (settings.groups.includes("density") && index === 0)
        await attempt(bench, `${what}, several guests`, variant, ["density"], measureDensity);
      measured();
    }
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      quick: { type: "boolean", default: false },
      runs: { type: "string" },
      only: { type: "string" },
      choices: { type: "boolean", default: false },
      minios: { type: "string" },
      "minios-hvmloader": { type: "string" },
      host: { type: "string", default: "lab" },
      xen: { type: "string", default: "" },
      icount: { type: "boolean", default: false },
      compare: { type: "string" },
      tolerance: { type: "string" },
      variants: { type: "string" },
      from: { type: "string" },
      output: { type: "string", default: "dist/bench" },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const tolerance = values.tolerance === undefined ? COUNTED_TOLERANCE : Number(values.tolerance) / 100;
  if (!(tolerance > 0 && tolerance < 1))
    throw new RangeError(`--tolerance ${values.tolerance}: must be from 1 to 99`);
  const old = values.compare === undefined ? undefined : read(values.compare);
  if (old !== undefined && values.from === undefined) sameClock(old, values.icount);
  const results = values.from === undefined ? await made(values) : read(values.from);
  const files = writeAll(results, values.output);
  console.log(markdown(results));
  console.log(`${values.output}: ${files.join(", ")}`);
  // Troubles of results made before were told then.
  const well = values.from !== undefined || results.troubles.every((each) => each.includes(MADE_AGAIN));
  const failed = well ? 0 : 1;
  if (old === undefined) return failed;
  const comparison = compare(old, results, tolerance);
  console.log(`\nSince ${old.made.slice(0, 10)} (${old.commit}):\n${comparisonText(comparison)}`);
  const worse = comparison.changes.some(({ verdict }) => verdict === "worse") || comparison.lost.length > 0;
  return worse ? 1 : failed;
}

function read(file: string): Results {
  return parseResults(readFileSync(file, "utf8"), file);
}

/** @throws RangeError for a name that there is not, or not with these options */
function variantOf(name: string, usual: readonly VariantName[]): VariantName {
  const found = usual.find((each) => each === name);
  if (found !== undefined) return found;
  if (name === "minios") throw new RangeError("--variants minios needs --minios FILE");
  throw new RangeError(`--variants ${name}: there are ${usual.join(", ")}`);
}

/** What is measured, and what measures it. */
const BUILT = ["stubdom", "stubdom-linux-kernel", "stubdom-linux-ramdisk", "test-guest-kernel"] as const;

interface Values {
  readonly quick: boolean;
  readonly runs?: string | undefined;
  readonly only?: string | undefined;
  readonly choices: boolean;
  readonly variants?: string | undefined;
  readonly minios?: string | undefined;
  readonly "minios-hvmloader"?: string | undefined;
  readonly host: string;
  readonly xen: string;
  readonly icount: boolean;
  readonly output: string;
}

async function made({
  quick,
  runs,
  only,
  choices,
  variants: named,
  minios,
  "minios-hvmloader": hvmloader,
  host: kind,
  xen,
  icount,
  output,
}: Values): Promise<Results> {
  if (kind !== "lab" && kind !== "local") throw new RangeError(`--host ${kind}: must be lab or local`);
  if (icount && kind === "local")
    throw new RangeError("--icount needs the emulated host: leave out --host local");
  if (xen !== "" && kind === "local")
    throw new RangeError("--xen is for the emulated host: leave out --host local");
  if (hvmloader !== undefined && minios === undefined)
    throw new RangeError("--minios-hvmloader is for the guests of --minios FILE");
  // A file that is not there shall not wait for the host.
  const missing = BUILT.filter((name) => !existsSync(join(PROJECT, "dist", name)));
  if (missing.length > 0) throw new Error(`no ${missing.join(", ")} in dist/: npm run build makes them`);
  const given: Minios | undefined =
    minios === undefined
      ? undefined
      : {
          image: readFileSync(minios),
          ...(hvmloader !== undefined && { hvmloader: readFileSync(hvmloader) }),
        };
  const settings = settingsOf({
    quick,
    icount,
    minios: minios !== undefined,
    ...(runs !== undefined && { runs: Number(runs) }),
    ...(only !== undefined && { only: only.split(",") }),
  });
  const usual: VariantName[] = [
    "dom0",
    "linux-stubdom",
    ...(choices ? CHOICES : (["shell-stubdom"] as const)),
    ...(minios === undefined ? [] : (["minios"] as const)),
  ];
  const variants = named === undefined ? usual : named.split(",").map((name) => variantOf(name, usual));
  const order = interleaved(variants, settings.runs);
  // A copy without its history has none.
  const described = capture(["git", "describe", "--always", "--dirty", "--exclude=*"]);
  const commit = (await described.catch(() => "unknown")).trim();
  const host = await progress.step("Xen host", async () =>
    kind === "local"
      ? LocalHost.start()
      : LabHost.start({
          deterministic: icount,
          xenArgs: xen === "" ? [] : [xen],
          // On one processor it does not matter where Xen has put whom, which differs from boot to boot.
          // And what two boots of the host differ by does not matter to those who go on from the same one.
          ...(icount && { vcpus: 1, saved: xen === "" }),
          // One thread does all of it, and does not hurry on a machine that has other work.
          ...(icount && { bootTimeout: 1800 }),
        }),
  );
  try {
    const recorder = new Recorder();
    const about = await facts(host, kind, icount);
    const bench: Bench = {
      host,
      settings,
      recorder,
      disk: measuringDisk,
      screen: drawingDisk,
      ...(given !== undefined && { minios: given }),
    };
    const { groups, density, ...rest } = settings;
    const results = (ended?: string): Results => {
      const made = recorder.results({
        made: new Date().toISOString(),
        commit,
        host: about,
        settings: {
          ...rest,
          groups: groups.join(","),
          density: density.join(","),
          ...(xen !== "" && { xen }),
        },
        variants,
        order,
      });
      return ended === undefined ? made : { ...made, troubles: [...made.troubles, ended] };
    };
    // What has been measured is kept, however the rest ends: a guest takes minutes.
    await measureAll(bench, variants, order, () =>
      writeAll(results("ended before all was measured"), output),
    );
    return results();
  } finally {
    await host.stop();
  }
}

// Not by exitCode: a run that was interrupted has work under way that nobody waits for any more.
main().then(
  (status) => process.exit(status),
  (error: unknown) => {
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  },
);
