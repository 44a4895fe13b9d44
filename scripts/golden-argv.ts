/**
 * What the agent makes of the dm-argv that real toolstacks wrote: `test/golden/dm-argv/NAME.json` in,
 * `test/golden/argv/NAME.json` out. What could not be captured yet is in `dm-argv-by-hand/`.
 *
 *     npx tsx scripts/golden-argv.ts          compares, exits with 1 and the names when they differ
 *     npx tsx scripts/golden-argv.ts --write  writes; review the difference by eye before committing it
 */
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decodeText, encodeText } from "../agent/bytes/text.ts";
import { resolveConfig } from "../agent/config/config.ts";
import { qemuCommandLine } from "../agent/qemu/arguments.ts";
import { readDmArguments } from "../agent/qemu/dm-argv.ts";

const golden = join(import.meta.dirname, "../test/golden");
const sources = ["dm-argv", "dm-argv-by-hand"].map((name) => join(golden, name));
const expected = join(golden, "argv");

const { config } = await resolveConfig("", "");

interface Captured {
  /** Domain that the stub domain serves. */
  readonly target: number;
  readonly argv: readonly string[];
}

/** The golden file's text for one captured dm-argv, with the default configuration. */
export function goldenText({ target, argv }: Captured): string {
  const dm = readDmArguments(argv.map(encodeText), target);
  const { argv: result, notes } = qemuCommandLine(dm, {
    program: "/usr/bin/qemu-system-i386",
    agentMonitor: 3,
    toolstackMonitor: 4,
    taps: new Map(dm.nics.map(({ netdev }, index) => [netdev, 10 + index])),
    incoming: "fd:5",
    config,
  });
  const { nics, disks, serials, restoring } = dm;
  const read = { nics, disks, serials, restoring };
  return `${JSON.stringify({ read, argv: result.map(decodeText), notes }, null, 2)}\n`;
}

/** For each golden its text as it should be and as it is on disk; `undefined` where one is missing. */
export function compareGoldens(): { name: string; should: string | undefined; is: string | undefined }[] {
  const names = new Set([...sources, expected].flatMap(jsonNames));
  return [...names].sort().map((name) => {
    const input = sources.map((source) => read(join(source, name))).find((text) => text !== undefined);
    return {
      name,
      should: input === undefined ? undefined : goldenText(JSON.parse(input) as Captured),
      is: read(join(expected, name)),
    };
  });
}

function jsonNames(directory: string): string[] {
  mkdirSync(directory, { recursive: true });
  return readdirSync(directory).filter((name) => name.endsWith(".json"));
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}

if (process.argv[1] === import.meta.filename) {
  const different = compareGoldens().filter(({ should, is }) => should !== is);
  for (const { name, should } of different) {
    console.log(`${name} differs`);
    if (!process.argv.includes("--write")) process.exitCode = 1;
    else if (should === undefined) rmSync(join(expected, name));
    else writeFileSync(join(expected, name), should);
  }
}
