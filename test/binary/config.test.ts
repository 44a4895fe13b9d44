/** What reads ini files is loaded lazily, as bytecode, and only where there is something to read. */
import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { beforeAll, expect, it } from "vitest";
import { resolveConfig } from "../../agent/config/config.ts";
import { buildAgent } from "../../bundler/agent.ts";
import { buildRoot } from "../../bundler/root.ts";

let program: string;

beforeAll(async () => {
  const entry = fileURLToPath(new URL("config/driver.ts", import.meta.url));
  ({ program } = await buildAgent(await buildRoot(), entry));
}, 600_000);

it.each([
  ["nothing", ""],
  ["comments", "; one\n;two = 2\n\n"],
  ["a setting", "; said\nloglevel = debug\nqemu_deadline=20\n"],
  ["another kind of comment", "# said\nloglevel=debug\n"],
  ["a section and nonsense", "[section]\nloglevel=loud\nfour\n"],
])("an ini file of %s is understood as it is under Node", async (_, ini) => {
  const { stdout } = await promisify(execFile)(program, [ini], { timeout: 10_000 });
  expect(JSON.parse(stdout)).toEqual(await resolveConfig("", ini));
});
