/**
 * What a guest's access, disk request and round trip cost, in executed instructions of the whole emulated host, against
 * the figures that are in the repository: docs/bench/counted.json, made by the command below without `--compare`, and to
 * be made anew when they change for a reason, such as another Xen of Debian's.
 */

import { spawn } from "node:child_process";
import { once } from "node:events";
import { expect, it } from "vitest";

/** More than two boots of the same differ by (BENCHMARKS.md), and less than anybody should lose unseen. */
const tolerance = 3;

it(`costs no more instructions than it did, within ${tolerance} %`, async () => {
  const words = [
    ...["--quick", "--icount", "--runs", "1", "--variants", "linux-stubdom", "--output", "dist/test/counted"],
    ...["--compare", "docs/bench/counted.json", "--tolerance", String(tolerance)],
  ];
  const bench = spawn(process.execPath, ["--import", "tsx", "scripts/bench/bench.ts", ...words], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  bench.stdout.setEncoding("utf8").on("data", (text: string) => {
    said += text;
  });
  const [status] = await once(bench, "close");
  console.log(said.slice(said.indexOf("\nSince ")));
  expect(status, said).toBe(0);
});
