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

test("a serial port's bytes go through FIFOs, by threads whose end is told", async () => {
  const stage = new Stage();
  await stage.running();
  expect(stage.relays.map(({ between }) => between)).toEqual([
    ["/run/hvc3.out", "/dev/hvc3"],
    ["/dev/hvc3", "/run/hvc3.in"],
  ]);
  stage.relays[0]?.fail("EIO");
  await stage.quiet();
  expect(stage.agent("error")).toMatch(
    /^\/dev\/hvc3: what the guest says on this serial port no longer arrives: .*EIO; create the guest again$/,
  );
});
