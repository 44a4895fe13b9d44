/** Process 1's memory is QEMU's: what nobody uses any more does not stay. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, it } from "vitest";
import { buildAgent } from "../../bundler/agent.ts";
import { buildRoot } from "../../bundler/root.ts";

it("rings of garbage are collected before much has gathered", { timeout: 600_000 }, async () => {
  const entry = fileURLToPath(new URL("garbage/driver.ts", import.meta.url));
  const { program } = await buildAgent(await buildRoot(), entry);
  const { stdout } = await promisify(execFile)(program, [], { timeout: 60_000 });
  // 64 KiB, what comes between two looks, and the collection's own; 40,000 rings would be 8 MiB.
  expect((JSON.parse(stdout) as { grown: number }).grown).toBeLessThan(300);
});
