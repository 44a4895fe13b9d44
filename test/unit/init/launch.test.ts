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

test("stubdom.disk_aio=native, which the page cache leaves without effect, is told of", async () => {
  const told = async (commandLine: string) => {
    const stage = new Stage({ commandLine });
    await stage.running();
    return stage.of("warn");
  };
  expect(await told("stubdom.disk_aio=native")).toEqual([
    expect.stringMatching(/^disk_aio=native does nothing beside disk_cache=writeback.*; /),
  ]);
  expect(await told("stubdom.disk_aio=native stubdom.disk_cache=none")).toEqual([]);
});
