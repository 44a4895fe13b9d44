/** The files that a benchmark leaves. */
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { GROUPS, type Group, MEASURES } from "./measures.ts";
import { groupPlot } from "./plot.ts";
import { png } from "./png.ts";
import { describedIn, type Results } from "./results.ts";
import { svg } from "./scene.ts";
import { markdown } from "./table.ts";
import type { Described } from "./units.ts";

export const RESULTS = "results.json";

const groups = Object.keys(GROUPS) as Group[];
/** Names of all files that we ever write. */
const OWN = [RESULTS, "table.md", ...groups.flatMap((group) => [`${group}.svg`, `${group}.png`])];

/** Table and pictures, and nothing beside them that an earlier run has left; gives the files' names. */
export function writeAll(results: Results, directory: string): string[] {
  const written: string[] = [];
  const write = (name: string, content: string | Uint8Array): void => {
    writeFileSync(join(directory, name), content);
    written.push(name);
  };
  mkdirSync(directory, { recursive: true });
  const { figures, troubles, ...about } = results;
  const kept = { ...about, measures: describedAll(results), figures, troubles };
  write(RESULTS, `${JSON.stringify(kept, null, 2)}\n`);
  write("table.md", markdown(results));
  for (const group of groups) {
    const scene = groupPlot(results, group);
    if (scene === undefined) continue;
    write(`${group}.svg`, svg(scene));
    write(`${group}.png`, png(scene));
  }
  removeOwn(directory, written);
  return written;
}

/** What this version does not know is as the file said. */
function describedAll(results: Results): Record<string, Described> {
  const known = MEASURES.map((each) => [each.id, describedIn(results, each)] as const);
  const all: Readonly<Record<string, Described>> = { ...results.measures, ...Object.fromEntries(known) };
  return Object.fromEntries(Object.entries(all).filter(([id]) => id in results.figures));
}

/** Takes away what an earlier run has left, so that it does not pass for this one's. */
export function removeOwn(directory: string, but: readonly string[] = []): void {
  for (const name of OWN) if (!but.includes(name)) rmSync(join(directory, name), { force: true });
}

/** @throws RangeError where {@link writeAll} would fail: to be known before anything is measured */
export function checkWritable(directory: string): void {
  try {
    mkdirSync(directory, { recursive: true });
    rmdirSync(mkdtempSync(join(directory, ".bench-")));
    for (const file of OWN.map((name) => join(directory, name)))
      if (existsSync(file)) closeSync(openSync(file, "r+"));
  } catch (error) {
    throw new RangeError(
      `--output ${directory}: cannot be written (${error instanceof Error ? error.message : error}); name another directory`,
    );
  }
}
