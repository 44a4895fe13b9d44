/** Devices that change under the running guest, through the whole of PID 1. */
import { expect, test } from "vitest";
import { SystemError } from "../../../agent/platform/port.ts";
import type { JsonValue } from "../../../agent/qmp/json.ts";
import { FakeFdsets } from "../../fakes/fdsets.ts";
import { Stage } from "./stage.ts";

const hdc = 5632;

/** A guest with a CD drive, whose QEMU keeps descriptor sets. */
async function withDrive(): Promise<{ stage: Stage; fdsets: FakeFdsets }> {
  const fdsets = new FakeFdsets();
  const stage: Stage = new Stage({
    guest: "trixie-cdrom",
    execute: (command, args): JsonValue | Promise<JsonValue> => {
      const given = command === "add-fd" ? stage.kernel.passed.at(-1) : undefined;
      if (given === undefined) return fdsets.execute(command, args as { opaque?: string });
      return fdsets.executeWith(given, command, args as { opaque?: string });
    },
  });
  await stage.running();
  return { stage, fdsets };
}

/** As libxl does it: takes the drive away, and gives it back with another medium. */
async function change(stage: Stage): Promise<void> {
  const front = `${stage.home}/device/vbd/${hdc}`;
  const back = `/local/domain/0/backend/vbd/${stage.captured.stubdom}/${hdc}`;
  stage.daemon.remove(front);
  await stage.quiet();
  stage.daemon.set(back, "");
  stage.daemon.permit(back, [
    { domid: 0, access: "none" },
    { domid: stage.captured.stubdom, access: "read" },
  ]);
  stage.daemon.setAll({ [`${back}/dev`]: "hdc", [`${back}/mode`]: "r", [`${back}/params`]: "/iso/b" });
  stage.daemon.setAll(
    {
      [front]: "",
      [`${front}/backend`]: back,
      [`${front}/device-type`]: "cdrom",
      [`${front}/virtual-device`]: String(hdc),
      [`${front}/state`]: "1",
    },
    stage.captured.stubdom,
  );
  await stage.quiet();
  stage.daemon.set(`${front}/state`, "4", stage.captured.stubdom);
  await stage.quiet();
}

test("a CD that is changed reaches QEMU over the agent's monitor, with its descriptor", async () => {
  const { stage, fdsets } = await withDrive();
  expect(stage.kernel.passed).toEqual([]);
  await change(stage);
  expect([...fdsets.sets.values()].map(({ opaque }) => opaque)).toEqual([`stub-devid:${hdc}`]);
  expect(stage.kernel.passed).toHaveLength(1);
  expect(stage.lines).toContain(
    "info: CD drive hdc has a new medium on /dev/xvdc: QEMU can open it as /dev/fdset/0",
  );
  expect([stage.of("error"), stage.clock.pending]).toEqual([[], 0]);
});

test("a fault that comes again and passes gives way to what else is the matter", async () => {
  const { stage, fdsets } = await withDrive();
  const fail = () => {
    fdsets.refusal = { command: "add-fd", error: new Error("no") };
    return change(stage);
  };
  await fail();
  expect(stage.agent("error")).toMatch(/^CD drive device\/vbd\/5632: no new medium/);
  await stage.monitor?.event("BLOCK_IO_ERROR", {
    device: "ide0-hd0",
    operation: "write",
    action: "report",
    reason: "Input/output error",
  });
  await stage.quiet();
  await fail();
  expect(stage.agent("error")).toMatch(/^CD drive device\/vbd\/5632: no new medium/);
  await change(stage);
  expect(stage.agent("error")).toMatch(/: a write failed: /);
});

test("QMP that dom0 cannot be offered is told where dom0 looks, and stays so", async () => {
  const stage = new Stage();
  stage.vchans.failure = new SystemError("ENOENT", "listen", "/dev/xen/gntalloc");
  await stage.running();
  await stage.pass(1000);
  expect(stage.agent("error")).toMatch(/^QMP: no vchan for dom0 at .*ENOENT; needs \/dev\/xen\/gntalloc/);
  expect(stage.agent("phase")).toBe("running");
  stage.signal("SIGUSR2");
  await stage.pass(1000);
  expect(stage.clock.pending).toBe(0);
});

test("a disk that dom0's QEMU serves is named: a guest with PV drivers would wait for it in vain", async () => {
  const told = async (guest: string) => {
    const stage = new Stage({ guest });
    await stage.running();
    return stage.lines.filter((line) => line.includes("is served by dom0's QEMU"));
  };
  expect(await told("trixie-one-disk")).toEqual([]);
  expect(await told("trixie-cdrom")).toEqual([]);
  expect(await told("trixie-qcow2")).toEqual([
    expect.stringMatching(
      /^info: disk hda is served by dom0's QEMU, .*xen_emul_unplug=never.*backendtype=phy$/,
    ),
  ]);
});

test("a disk error is told in the log and to dom0, by the disk's name", async () => {
  const stage = new Stage();
  await stage.running();
  const error = { device: "ide0-hd0", operation: "write", action: "report", reason: "Input/output error" };
  await stage.monitor?.event("BLOCK_IO_ERROR", error);
  await stage.monitor?.event("BLOCK_IO_ERROR", { ...error, device: "\u001b[2J" });
  await stage.quiet();
  expect(stage.of("error")).toEqual([
    expect.stringMatching(/^disk hda \(ide0-hd0\): a write failed: Input\/output error; the guest was told/),
    expect.stringMatching(/^QEMU's drive \\x1b\[2J: a write failed/),
  ]);
  expect(stage.agent("error")).toMatch(/a write failed/);
  await stage.pass(10_000);
  expect(stage.clock.pending).toBe(0);
});

test("a disk that QEMU does not emulate is named, and does not hold the boot up", async () => {
  const stage = new Stage({ guest: "trixie-one-disk" });
  const front = `${stage.home}/device/vbd/51776`;
  const back = `/local/domain/0/backend/vbd/${stage.captured.stubdom}/51776`;
  stage.daemon.setAll({
    [back]: "",
    [`${back}/dev`]: "xvde",
    [`${back}/mode`]: "w",
    [`${back}/params`]: "x",
  });
  for (const path of [back, `${back}/dev`, `${back}/mode`, `${back}/params`])
    stage.daemon.permit(path, [
      { domid: 0, access: "none" },
      { domid: stage.captured.stubdom, access: "read" },
    ]);
  stage.daemon.setAll(
    { [`${front}/backend`]: back, [`${front}/virtual-device`]: "51776", [`${front}/state`]: "1" },
    stage.captured.stubdom,
  );
  await stage.running();
  expect(stage.of("warn")).toEqual([
    expect.stringMatching(
      /^disk xvde \(device\/vbd\/51776\) is not emulated: .*PV drivers alone, and only if dom0.s kernel serves it/,
    ),
  ]);
});

test("for a guest without NICs none is watched", async () => {
  const stage = new Stage({ guest: "trixie-cdrom" });
  await stage.running();
  expect(stage.daemon.requests.filter((request) => /^watch .*vif/.test(request))).toEqual([]);
});
