/** What QEMU's process is given beside its arguments. */

import { expect, test } from "vitest";
import type { SpawnOptions } from "../../../agent/platform/port.ts";
import { Stage } from "./stage.ts";

async function spawned(commandLine: string): Promise<SpawnOptions | undefined> {
  const stage = new Stage({ commandLine });
  await stage.running();
  return stage.spawned[0];
}

test("QEMU's clock and its flush are ours", async () => {
  const given = await spawned("");
  expect(given?.env).toEqual([
    "LD_PRELOAD=/lib/stubdom-flush.so:/lib/stubdom-clock.so",
    "STUBDOM_KERNEL_LOG=5",
  ]);
});

test("with stubdom.clock=kernel the clock is the C library's", async () => {
  expect((await spawned("stubdom.clock=kernel"))?.env[0]).toBe("LD_PRELOAD=/lib/stubdom-flush.so");
});

test("QEMU may read the kernel's log, from which its flush has what became of it", async () => {
  const stage = new Stage();
  await stage.running();
  expect(stage.opened(stage.spawned[0]?.descriptors[5])).toBe("/dev/kmsg");
});

test.each(["io_uring", "native disk_cache=none"])(
  "stubdom.disk_aio=%s, which has flushes that failed taken for done, is told of",
  async (words) => {
    const stage = new Stage({ commandLine: `stubdom.disk_aio=${words.replace(" ", " stubdom.")}` });
    await stage.running();
    expect(stage.of("warn")).toEqual([
      expect.stringMatching(/^disk_aio=\S+ takes a flush .* for done; write disk_aio=threads/),
    ]);
  },
);

test("stubdom.disk_aio=native, which the page cache leaves without effect, is told of", async () => {
  const told = async (commandLine: string) => {
    const stage = new Stage({ commandLine });
    await stage.running();
    return stage.of("warn");
  };
  expect(await told("stubdom.disk_aio=native")).toEqual([
    expect.stringMatching(/^disk_aio=native does nothing beside disk_cache=writeback.*; /),
  ]);
});
