import { afterEach, beforeEach, expect, test } from "vitest";
import { PciList } from "../../../agent/dom0/pci-list.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { quiet } from "../../fakes/clock.ts";
import { FakeXenHost } from "../../fakes/xen-host.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

const stubdom = "/local/domain/0/backend/pci/8/0";
const guest = "/local/domain/0/backend/pci/7/0";
let host: FakeXenHost;
let daemon: FakeXenstored;
let list: PciList;

beforeEach(async () => {
  daemon = new FakeXenstored({ largestPiece: 4096 });
  host = new FakeXenHost(daemon);
  await host.start();
  list = new PciList(host.process(0).connect(), silentLogger, 8, 7);
});

afterEach(() => {
  list.stop();
  host.stop();
});

/** As libxl and xen-pciback leave it. */
function assign(directory: string, position: number, address: string, state = "3"): void {
  const nodes = {
    num_devs: String(position + 1),
    state: "4",
    frontend: "/local/domain/8/device/pci/0",
    [`key-${position}`]: address,
    [`opts-${position}`]: "permissive=1",
    [`vdev-${position}`]: "0000:00:00.00",
    [`state-${position}`]: state,
    [`dev-${position}`]: address,
  };
  for (const [name, value] of Object.entries(nodes)) daemon.set(`${directory}/${name}`, value);
}

const listed = (...names: string[]) => names.map((name) => daemon.get(`${guest}/${name}`));

test("the guest has its stub domain's devices, those before the start and after", async () => {
  assign(stubdom, 0, "0000:03:00.0");
  await list.start();
  await quiet();
  expect(listed("num_devs", "dev-0", "key-0", "opts-0", "state-0")).toEqual([
    "1",
    "0000:03:00.0",
    "0000:03:00.0",
    "permissive=1",
    "1",
  ]);
  assign(stubdom, 1, "0000:04:00.0");
  await quiet();
  expect(listed("num_devs", "dev-0", "dev-1")).toEqual(["2", "0000:03:00.0", "0000:04:00.0"]);
  // What xen-pciback would take the list up for.
  expect(listed("state", "frontend", "vdev-0")).toEqual([undefined, undefined, undefined]);
});

test("a device that is being detached is not added anew, and none is removed", async () => {
  assign(stubdom, 0, "0000:03:00.0", "5");
  await list.start();
  await quiet();
  expect(listed("num_devs")).toEqual([undefined]);
  assign(stubdom, 0, "0000:03:00.0");
  await quiet();
  daemon.remove(stubdom);
  await quiet();
  expect(listed("num_devs", "dev-0")).toEqual(["1", "0000:03:00.0"]);
});

test("a list of libxl's own is left alone, and so is all after the end", async () => {
  assign(guest, 0, "0000:05:00.0");
  await list.start();
  assign(stubdom, 0, "0000:03:00.0");
  await quiet();
  expect(listed("num_devs", "dev-0")).toEqual(["1", "0000:05:00.0"]);
  daemon.remove(guest);
  list.stop();
  await quiet();
  assign(stubdom, 1, "0000:04:00.0");
  await quiet();
  expect(listed("num_devs")).toEqual([undefined]);
});
