/** What `npm run bench` is told on its command line, all of it looked at before anything is done. Pure. */

import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { COUNTED_TOLERANCE } from "./compare.ts";
import { GROUPS } from "./measures.ts";
import { RESULTS } from "./output.ts";
import { type Settings, settingsOf } from "./settings.ts";
import { CHOICES, type VariantName } from "./variants.ts";

const DIRECTORY = "dist/bench";

export const USAGE = `usage: npm run bench -- [options]

Measures a guest whose devices are emulated by QEMU in dom0, in our stub domain, in the same stub domain with a
shell script for process 1, and in MiniOS if there is one. Needs dist/ (npm run build). Leaves results.json,
table.md and a picture a group, as SVG and PNG, in ${DIRECTORY}, in place of an earlier run's; docs/bench.md
explains them.

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
  --compare OLD.json  what has changed since; status 1 if something is worse beyond its tolerance, or is no more.
                      By the clock that is the sum of both spreads, 10 % at least, or, where one side has fewer than
                      three runs, up to twice or half; what has moved by more than 10 % within it is named as unsure
  --tolerance PERCENT of what is counted (default 1)
  --from FILE         measures nothing: table and comparison of results made before; files only with --output, or
                      where FILE is ${join(DIRECTORY, RESULTS)}
  --output DIRECTORY  instead of ${DIRECTORY}
  --help

Status: 0 all was measured, and with --compare nothing is worse; 1 a run broke, or something is worse or lost; 2 wrong
options or files, no host, or an end before all was measured.`;

/** Words that mean something only where something is measured. */
const MEASURING = {
  quick: { type: "boolean" },
  runs: { type: "string" },
  only: { type: "string" },
  choices: { type: "boolean" },
  variants: { type: "string" },
  minios: { type: "string" },
  "minios-hvmloader": { type: "string" },
  host: { type: "string" },
  xen: { type: "string" },
  icount: { type: "boolean" },
} as const;

/** What is to be measured, and of whom. */
export interface Plan {
  readonly settings: Settings;
  readonly variants: readonly VariantName[];
  /** Paths of files. */
  readonly minios?: string | undefined;
  readonly hvmloader?: string | undefined;
  readonly host: "lab" | "local";
  readonly xen: string;
  readonly icount: boolean;
  /** Where its files go. */
  readonly output: string;
}

export interface Options {
  /** Path of results to compare with. */
  readonly compare?: string | undefined;
  /** The share by which what is counted may differ. */
  readonly tolerance: number;
  /** What to measure, or the path of what was measured before. */
  readonly source: Plan | { readonly from: string; readonly output?: string | undefined };
}

/**
 * @returns `undefined` where help is asked for
 * @throws RangeError for what cannot be chosen; TypeError, parseArgs', for options that there are not
 */
export function optionsOf(args: readonly string[]): Options | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...MEASURING,
      compare: { type: "string" },
      tolerance: { type: "string" },
      from: { type: "string" },
      output: { type: "string" },
      help: { type: "boolean" },
    },
  });
  const { compare, from, output, help } = values;
  if (help === true) return undefined;
  const percent = values.tolerance === undefined ? 100 * COUNTED_TOLERANCE : Number(values.tolerance);
  if (!(percent > 0 && percent < 100))
    throw new RangeError(`--tolerance ${values.tolerance}: must be per cent, above 0 and below 100`);
  const common = { compare, tolerance: percent / 100 };
  if (from === undefined) return { ...common, source: planOf(values, output ?? DIRECTORY) };
  const idle = (Object.keys(MEASURING) as (keyof typeof MEASURING)[]).filter(
    (name) => values[name] !== undefined,
  );
  if (idle.length > 0)
    throw new RangeError(
      `${idle.map((name) => `--${name}`).join(", ")}: with --from nothing is measured; leave out the one or the other`,
    );
  const own = resolve(from) === resolve(DIRECTORY, RESULTS) ? DIRECTORY : undefined;
  return { ...common, source: { from, output: output ?? own } };
}

/** What was given of {@link MEASURING}. */
type Given = {
  readonly [Name in keyof typeof MEASURING]?:
    | ((typeof MEASURING)[Name]["type"] extends "boolean" ? boolean : string)
    | undefined;
};

function planOf(given: Given, output: string): Plan {
  const { quick = false, runs, only, choices = false, variants, minios, xen = "", icount = false } = given;
  const { host = "lab", "minios-hvmloader": hvmloader } = given;
  if (host !== "lab" && host !== "local") throw new RangeError(`--host ${host}: must be lab or local`);
  if (icount && host === "local")
    throw new RangeError("--icount needs the emulated host: leave out --host local");
  if (xen !== "" && host === "local")
    throw new RangeError("--xen is for the emulated host: leave out --host local");
  if (hvmloader !== undefined && minios === undefined)
    throw new RangeError("--minios-hvmloader is for the guests of --minios FILE");
  if (runs !== undefined && !/^[1-9]\d{0,5}$/.test(runs))
    throw new RangeError(`--runs ${runs}: must be a number from 1`);
  const usual: VariantName[] = [
    "dom0",
    "linux-stubdom",
    ...(choices ? CHOICES : (["shell-stubdom"] as const)),
    ...(minios === undefined ? [] : (["minios"] as const)),
  ];
  const chosen =
    variants === undefined ? usual : names("--variants", variants).map((name) => variantOf(name, usual));
  if (minios !== undefined && !chosen.includes("minios"))
    throw new RangeError(
      "--minios is for the variant minios: name it among --variants, or leave the file out",
    );
  const settings = settingsOf({
    quick,
    icount,
    minios: minios !== undefined,
    ...(runs !== undefined && { runs: Number(runs) }),
    ...(only !== undefined && { only: names("--only", only) }),
  });
  return { settings, variants: chosen, minios, hvmloader, host, xen, icount, output };
}

function names(option: string, text: string): string[] {
  const all = text.split(",");
  const twice = all.find((name, index) => all.indexOf(name) < index);
  if (twice !== undefined) throw new RangeError(`${option} ${text}: ${twice} is there twice; once is enough`);
  return all;
}

function variantOf(name: string, usual: readonly VariantName[]): VariantName {
  const found = usual.find((each) => each === name);
  if (found !== undefined) return found;
  if (name === "minios") throw new RangeError("--variants minios needs --minios FILE");
  throw new RangeError(`--variants ${name}: there are ${usual.join(", ")}`);
}
