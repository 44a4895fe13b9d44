import { expect, test } from "vitest";
import { listDevices } from "../../../agent/dom0/pci-detach.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock } from "../../fakes/clock.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

const stubdom = "/local/domain/0/backend/pci/8/0";
const guest = "/local/domain/0/backend/pci/7";

function dom0(stubdomId = "8") {
  const daemon = new FakeXenstored();
  if (stubdomId !== "") daemon.set("/local/domain/7/image/device-model-domid", stubdomId);
  const client = new XenstoreClient(daemon.connect(0), new FakeClock());
  return { daemon, list: () => client.transaction((tx) => listDevices(tx, 7)) };
}

function assign(daemon: FakeXenstored, directory: string, position: number, address: string) {
  daemon.set(`${directory}/num_devs`, String(position + 1));
  daemon.set(`${directory}/state`, "4");
  daemon.set(`${directory}/frontend`, "/local/domain/8/device/pci/0");
  for (const [name, value] of [
    ["dev", address],
    ["key", address],
    ["opts", "permissive=1"],
    ["vdev", "0000:00:00.00"],
    ["state", "3"],
  ] as const) {
    daemon.set(`${directory}/${name}-${position}`, value);
  }
}

test("the guest has its stub domain's list, without what xen-pciback would take it up for", async () => {
  const { daemon, list } = dom0();
  assign(daemon, stubdom, 0, "0000:03:00.0");
  assign(daemon, stubdom, 1, "0000:04:00.0");
  expect(await list()).toBe(true);
  const nodes = ["num_devs", "dev-0", "dev-1", "key-1", "opts-1", "state-0", "state-1"];
  expect(nodes.map((node) => daemon.get(`${guest}/0/${node}`))).toEqual([
    "2",
    "0000:03:00.0",
    "0000:04:00.0",
    "0000:04:00.0",
    "permissive=1",
    "1",
    "1",
  ]);
  const not = ["state", "frontend", "vdev-0"];
  expect(not.map((node) => daemon.get(`${guest}/0/${node}`))).toEqual([undefined, undefined, undefined]);
});

test("nothing is written for a guest without devices, or without a stub domain", async () => {
  for (const id of ["8", ""]) {
    const { daemon, list } = dom0(id);
    if (id === "") assign(daemon, stubdom, 0, "0000:03:00.0");
    expect(await list()).toBe(false);
    expect(daemon.get(guest)).toBeUndefined();
  }
});

test("a list of libxl's own is left alone", async () => {
  const { daemon, list } = dom0();
  assign(daemon, stubdom, 0, "0000:03:00.0");
  assign(daemon, `${guest}/0`, 0, "0000:05:00.0");
  expect(await list()).toBe(false);
  expect(daemon.get(`${guest}/0/dev-0`)).toBe("0000:05:00.0");
});
