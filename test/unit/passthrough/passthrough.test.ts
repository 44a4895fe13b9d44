import { beforeEach, describe, expect, test } from "vitest";
import { parsePciAddress } from "../../../agent/frontends/pci-address.ts";
import type { Logger } from "../../../agent/log/logger.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { describe as described, Passthrough } from "../../../agent/passthrough/passthrough.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { configSpace, FakePciSysfs } from "../../fakes/pci.ts";
import { fakePlatform } from "../../fakes/platform.ts";
import { StubdomTree, stubdomId } from "../../fakes/stubdom-tree.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

let tree: StubdomTree;
let daemon: FakeXenstored;
let clock: FakeClock;
let sysfs: FakePciSysfs;
let lines: string[];
let passthrough: Passthrough;

beforeEach(() => {
  daemon = new FakeXenstored();
  tree = new StubdomTree(daemon);
  clock = new FakeClock();
  sysfs = new FakePciSysfs();
  lines = [];
  const level = (name: string) => (_: object, text: string) => void lines.push(`${name}: ${text}`);
  const log: Logger = { ...silentLogger, info: level("info"), warn: level("warn"), error: level("error") };
  const store = new XenstoreClient(daemon.connect(stubdomId), clock);
  passthrough = new Passthrough(store, fakePlatform({ clock, ...sysfs.pieces }), log, 7000);
});

const add = (hostaddr = "0000:03:00.0") =>
  passthrough.beforeDeviceAdd({ driver: "xen-pci-passthrough", id: "pci-pt-03_00.0", hostaddr });

describe("device_add", () => {
  test.each([
    { driver: "usb-tablet" },
    {},
    { driver: "xen-pci-passthrough" },
    { driver: "xen-pci-passthrough", hostaddr: 3 },
    { driver: "xen-pci-passthrough", hostaddr: "x" },
    { driver: ["xen-pci-passthrough"], hostaddr: "0000:03:00.0" },
  ])("of %j goes to QEMU at once", async (args) => {
    await passthrough.beforeDeviceAdd(args);
    expect([daemon.requests, lines]).toEqual([[], []]);
  });

  test("waits for the device, and tells what it is", async () => {
    const adding = add();
    await clock.advance(50);
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    sysfs.show("0000:00:00.0");
    await clock.advance(0);
    await adding;
    expect(lines).toEqual([
      "info: PCI device 0000:03:00.0 of the host, 0000:00:00.0 here: 8086:100e answers after 50 ms",
    ]);
  });

  test("of two at once waits for each", async () => {
    const both = [add("0000:03:00.0"), add("0000:04:00.0")];
    tree.pci("0000:03:00.0", "0000:04:00.0");
    tree.exportPci(0, "0000:00:00.00");
    tree.exportPci(1, "0000:00:01.00");
    sysfs.show("0000:00:00.0");
    sysfs.show("0000:00:01.0");
    await clock.advance(1);
    await Promise.all(both);
    expect(lines).toHaveLength(2);
  });

  test("is refused at the deadline; libxl's next tries share it, and another attempt has its own", async () => {
    const first = add().catch(String);
    await clock.advance(7000);
    expect(await first).toMatch(/0000:03:00\.0 .* after 7000 ms/);
    await clock.advance(1000);
    const retry = add().catch(String);
    await clock.advance(1);
    expect(await retry).toMatch(/after 0 ms/);
    expect(lines).toHaveLength(2);
    expect(lines[0]).toMatch(/^error: device_add: PCI device 0000:03:00\.0/);
    await clock.advance(10_000);
    const another = add().catch(String);
    await clock.advance(6999);
    expect(clock.pending).toBe(1);
    await clock.advance(1);
    expect(await another).toMatch(/after 7000 ms/);
    await settle();
    expect(clock.pending).toBe(0);
  });

  test("after one that was late has all of its time again", async () => {
    for (let round = 0; round < 3; round++) {
      const adding = add();
      await clock.advance(6000);
      tree.pci("0000:03:00.0");
      tree.exportPci(0, "0000:00:00.00");
      sysfs.show("0000:00:00.0");
      await clock.advance(0);
      await adding;
      sysfs.devices.clear();
      daemon.remove(tree.backend("pci", 0));
    }
    expect(lines.filter((line) => line.includes("after 6000 ms"))).toHaveLength(3);
  });
});

describe("interrupts by message", () => {
  const address = parsePciAddress("03:00.0") ?? { domain: 0, bus: 0, slot: 0, function: 0 };
  const device = { host: address, local: address, vendor: 1, device: 2, milliseconds: 3 };
  test.each([
    [[], false, undefined],
    [[1, 0x10], false, undefined],
    [[5], false, /0000:03:00\.0 of the host has MSI, .*forbids.*permissive=1/],
    [[0x11], false, /has MSI-X, .*allow_interrupt_control/],
    [[5, 0x11], false, /has MSI and MSI-X, /],
    [[5, 0x11], true, undefined],
  ])("capabilities %j, permissive %s", (capabilities, permissive, expected) => {
    const [, warning] = described({ ...device, capabilities, permissive });
    if (expected === undefined) expect(warning).toBeUndefined();
    else expect(warning).toMatchObject({ level: "warn", text: expect.stringMatching(expected) });
  });

  test("are told of when the device is added", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    sysfs.show("0000:00:00.0", configSpace({ capabilities: [0x11] }));
    await add();
    expect(lines.map((line) => line.slice(0, 5))).toEqual(["info:", "warn:"]);
  });
});

describe("saving", () => {
  test("goes on without a device, and when the last one is leaving", async () => {
    expect(await passthrough.keepsFromSaving()).toBeUndefined();
    tree.pci("0000:03:00.0");
    daemon.set(`${tree.backend("pci", 0)}/state-0`, "5");
    expect(await passthrough.keepsFromSaving()).toBeUndefined();
    daemon.set(`${tree.backend("pci", 0)}/num_devs`, "0");
    expect(await passthrough.keepsFromSaving()).toBeUndefined();
  });

  test("is refused with one, which is named", async () => {
    tree.pci("0000:03:00.0", "0000:04:00.1");
    expect(await passthrough.keepsFromSaving()).toMatch(
      /^the guest has PCI device.* 0000:03:00\.0, 0000:04:00\.1 of the host.*xl pci-detach/,
    );
  });
});

test("the list for people is what there is now", async () => {
  expect(await passthrough.list()).toEqual([]);
  tree.pci("0000:03:00.0", "0000:04:00.1", "0000:05:00.0");
  tree.exportPci(0, "0000:00:00.00");
  tree.exportPci(1, "0000:00:01.01");
  daemon.set(`${tree.backend("pci", 0)}/opts-0`, "permissive=1");
  daemon.set(`${tree.backend("pci", 0)}/state-1`, "5");
  expect((await passthrough.list()).map(({ name, detail }) => `${name}: ${detail}`)).toEqual([
    "PCI device 0000:03:00.0 of the host: 0000:00:00.0 here, permissive",
    "PCI device 0000:04:00.1 of the host: 0000:00:01.1 here, being detached",
    "PCI device 0000:05:00.0 of the host: not exported yet",
  ]);
});
