/**
 * What a guest's access, disk request and round trip cost, in executed instructions of the whole emulated host, and how large
 * image and stub domain are, against the figures that are in the repository: docs/bench/counted.json, made by the command
 * below with dom0's QEMU beside, and to be made anew when they change for a reason, such as another Xen of Debian's.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { compare, comparisonText } from "../../scripts/bench/compare.ts";
import { MEASURES, meansWhenCounted } from "../../scripts/bench/measures.ts";
import { parseResults } from "../../scripts/bench/results.ts";

const baseline = "docs/bench/counted.json";
const output = "dist/test/counted";
/** More than two boots of the same differ by (BENCHMARKS.md), and less than anybody should lose unseen. */
const tolerance = 0.03;
/**
 * With another Xen, Linux or QEMU of Debian's in dom0 than the baseline's: what they cost more is not ours to mend. What image
 * and memory come to has nothing of theirs.
 */
const toleranceOfOthers = 0.15;

const read = (file: string) => parseResults(readFileSync(file, "utf8"), file);

it("costs no more instructions and memory than it did", async () => {
  const words = ["--quick", "--icount", "--runs", "1", "--variants", "linux-stubdom", "--output", output];
  const bench = spawn(process.execPath, ["--import", "tsx", "scripts/bench/bench.ts", ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  bench.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const [status] = await once(bench, "close");
  expect(status, said).toBe(0);
  const [before, after] = [read(baseline), read(join(output, "results.json"))];
  const alike = before.host.xen === after.host.xen && before.host.dom0 === after.host.dom0;
  if (!alike)
    console.warn(
      `${baseline} is of ${before.host.xen}, ${before.host.dom0}: make it anew with npm run bench -- ${words.slice(0, -2).join(" ")}`,
    );
  const comparison = compare(before, after, alike ? tolerance : toleranceOfOthers);
  const sizes = compare(before, after, tolerance).changes.filter(({ id }) => id.startsWith("resources."));
  console.log(comparisonText(comparison));
  // All that is counted, in this run and in the baseline.
  const compared = new Set(comparison.changes.map(({ id }) => id));
  expect(compared).toEqual(new Set(MEASURES.filter(meansWhenCounted).map(({ id }) => id)));
  const worse = [...comparison.changes, ...sizes].filter(({ verdict }) => verdict === "worse");
  expect(worse).toEqual([]);
  expect(comparison.lost).toEqual([]);
});
