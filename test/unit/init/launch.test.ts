/** What QEMU's process is given beside its arguments. */

import { expect, test } from "vitest";
import { Stage } from "./stage.ts";

async function environment(commandLine: string): Promise<readonly string[] | undefined> {
  const stage = new Stage({ commandLine });
  await stage.running();
  return stage.spawned[0]?.env;
}

test("QEMU's clock is ours", async () => {
  expect(await environment("")).toEqual(["LD_PRELOAD=/lib/stubdom-clock.so"]);
});

test("with stubdom.clock=kernel it is the C library's, and the environment empty", async () => {
  expect(await environment("stubdom.clock=kernel")).toEqual([]);
});
