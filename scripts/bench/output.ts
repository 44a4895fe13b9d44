/** The files that a benchmark leaves. */
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { GROUPS, type Group } from "./measures.ts";
import { groupPlot } from "./plot.ts";
import { png } from "./png.ts";
import type { Results } from "./results.ts";
import { svg } from "./scene.ts";
import { markdown } from "./table.ts";

/** Table and pictures; gives the files' names. */
export function writeAll(results: Results, directory: string): string[] {
  const written: string[] = [];
  const write = (name: string, content: string | Uint8Array): void => {
    writeFileSync(join(directory, name), content);
    written.push(name);
  };
  mkdirSync(directory, { recursive: true });
  write("results.json", `${JSON.stringify(results, null, 2)}\n`);
  write("table.md", markdown(results));
  for (const group of Object.keys(GROUPS) as Group[]) {
    const scene = groupPlot(results, group);
    if (scene === undefined) continue;
    write(`${group}.svg`, svg(scene));
    write(`${group}.png`, png(scene));
  }
  return written;
}
