import { beforeEach, describe, expect, it } from "vitest";
import { BadNode } from "../../../agent/frontends/errors.ts";
import { parsePciAddress } from "../../../agent/frontends/pci-address.ts";
import { readCapabilities } from "../../../agent/frontends/pci-config.ts";
import { awaitPciDevice, PciDeviceMissing } from "../../../agent/frontends/pci-wait.ts";
import type { Platform } from "../../../agent/platform/port.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { ConnectionLost } from "../../../agent/xenstore/errors.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { configSpace, FakePciSysfs } from "../../fakes/pci.ts";
import { fakePlatform } from "../../fakes/platform.ts";
import { home, StubdomTree, stubdomId } from "../../fakes/stubdom-tree.ts";
import { type FakeXenbus, FakeXenstored } from "../../fakes/xenstored.ts";

let daemon: FakeXenstored;
let tree: StubdomTree;
let bus: FakeXenbus;
let clock: FakeClock;
let client: XenstoreClient;
let sysfs: FakePciSysfs;
let platform: Platform;

beforeEach(() => {
  daemon = new FakeXenstored();
  tree = new StubdomTree(daemon);
  bus = daemon.connect(stubdomId);
  clock = new FakeClock();
  client = new XenstoreClient(bus, clock);
  sysfs = new FakePciSysfs();
  platform = fakePlatform({ clock, ...sysfs.pieces });
});

const address = (text: string) => parsePciAddress(text) ?? { domain: 0, bus: 0, slot: 0, function: 0 };
const wait = (host = "0000:03:00.0", milliseconds = 7000) =>
  awaitPciDevice(client, platform, address(host), milliseconds);
const failure = async (waiting: Promise<unknown>): Promise<string> => {
  const error = await waiting.then(
    () => new Error("it answered"),
    (caught: unknown) => caught,
  );
  expect(error).toBeInstanceOf(PciDeviceMissing);
  return String(error);
};
const quiet = async () => {
  for (let turn = 0; turn < 40; turn++) await settle();
};

/** Nothing stays behind: no timer, no watch, no descriptor. */
async function clean(): Promise<void> {
  await quiet();
  expect([clock.pending, daemon.watchCount, sysfs.leaked]).toEqual([0, 0, 0]);
}

describe("waiting for a PCI device", () => {
  it("is over at once when it answers", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    sysfs.show("0000:00:00.0", configSpace({ capabilities: [0x01, 0x05, 0x11] }));
    expect(await wait()).toEqual({
      host: address("03:00.0"),
      local: address("00:00.0"),
      vendor: 0x8086,
      device: 0x100e,
      permissive: false,
      capabilities: [0x01, 0x05, 0x11],
      milliseconds: 0,
    });
    // Each byte is a question to dom0.
    expect(sysfs.bytesRead).toBeLessThan(16);
    await clean();
  });

  it("goes through all that libxl, xen-pciback and our kernel do, without looking by itself", async () => {
    const waiting = wait();
    await clock.advance(100);
    tree.pci("0000:04:00.0", "0000:03:00.0");
    await clock.advance(100);
    tree.exportPci(0, "0000:00:00.00");
    tree.exportPci(1, "0000:00:01.00");
    tree.state("device/pci/0", 3);
    await clock.advance(100);
    const before = daemon.requests.length;
    await clock.advance(5000);
    expect([daemon.requests.length, clock.pending]).toEqual([before, 1]);
    sysfs.show("0000:00:00.0");
    await clock.advance(100);
    sysfs.show("0000:00:01.0");
    await clock.advance(1);
    expect(await waiting).toMatchObject({ local: address("00:01.0"), milliseconds: 5400 });
    await clean();
  });

  it("looks again when the frontend connects, also without a word from the kernel", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    const waiting = wait();
    await clock.advance(10);
    sysfs.devices.set("0000:00:00.0", configSpace());
    tree.state("device/pci/0", 4);
    await clock.advance(10);
    expect(await waiting).toMatchObject({ vendor: 0x8086 });
    await clean();
  });

  it("is not confused by a device before it that is being detached", async () => {
    tree.pci("0000:02:00.0", "0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    tree.exportPci(1, "0000:00:01.00");
    sysfs.show("0000:00:01.0");
    const backend = tree.backend("pci", 0);
    // libxl closes the gap: between two of its writes the last one is missing.
    daemon.remove(`${backend}/dev-1`);
    const waiting = wait();
    await clock.advance(10);
    daemon.set(`${backend}/num_devs`, "1");
    daemon.set(`${backend}/dev-0`, "0000:03:00.0");
    daemon.set(`${backend}/vdev-0`, "0000:00:01.00");
    tree.state("device/pci/0", 4);
    await clock.advance(10);
    expect(await waiting).toMatchObject({ local: address("00:01.0") });
    await clean();
  });

  it("tells a permissive one", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    daemon.set(
      `${tree.backend("pci", 0)}/opts-0`,
      "msitranslate=0,power_mgmt=0,permissive=1,rdm_policy=strict",
    );
    sysfs.show("0000:00:00.0");
    expect(await wait()).toMatchObject({ permissive: true });
  });
});

describe("a PCI device that cannot be had is named in both spaces", () => {
  it("no bus at all", async () => {
    const waiting = failure(wait());
    await clock.advance(7000);
    expect(await waiting).toMatch(
      /PCI device 0000:03:00\.0 of the host, without an address here: .*no PCI bus after 7000 ms; .*pci=/,
    );
    await clean();
  });

  it("another one on the bus", async () => {
    tree.pci("0000:04:00.0");
    const waiting = failure(wait());
    await clock.advance(7000);
    expect(await waiting).toMatch(/not among the devices in .*backend\/pci\/5\/0 .*\(0000:04:00\.0\)/);
    await clean();
  });

  it("listed and not exported", async () => {
    tree.pci("0000:03:00.0");
    const waiting = failure(wait());
    await clock.advance(7000);
    expect(await waiting).toMatch(/not exported it after 7000 ms: .*state 1 .*xen-pciback is loaded in dom0/);
    await clean();
  });

  it("exported and not shown", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    tree.state("device/pci/0", 4);
    daemon.set(`${home}/error/device/pci/0/error`, "-22 Error scanning", stubdomId);
    const waiting = failure(wait());
    await clock.advance(7000);
    const text = await waiting;
    expect(text).toMatch(/0000:03:00\.0 of the host, 0000:00:00\.0 here: our kernel does not show it/);
    expect(text).toContain('our kernel says "-22 Error scanning"');
    await clean();
  });

  it("answers 0xffff: at once", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    sysfs.show("0000:00:00.0", configSpace({ vendor: 0xffff, device: 0xffff }));
    expect(await failure(wait())).toMatch(/0000:03:00\.0 of the host, 0000:00:00\.0 here: .* answers 0xffff/);
    await clean();
  });

  it("shares its address with another", async () => {
    tree.pci("0000:03:00.0", "0000:04:00.0");
    tree.exportPci(0, "0000:00:00.00");
    tree.exportPci(1, "0000:00:00.0");
    sysfs.show("0000:00:00.0");
    expect(await failure(wait("0000:04:00.0"))).toMatch(
      /0000:04:00\.0 of the host, 0000:00:00\.0 here: that is the address of 0000:03:00\.0 too/,
    );
    await clean();
  });

  it("is being detached", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    daemon.set(`${tree.backend("pci", 0)}/state-0`, "5");
    sysfs.show("0000:00:00.0");
    const waiting = failure(wait());
    await clock.advance(7000);
    expect(await waiting).toMatch(/not among the devices/);
  });

  it("with no time left it is looked at once", async () => {
    tree.pci("0000:03:00.0");
    const waiting = failure(wait("0000:03:00.0", 0));
    await clock.advance(0);
    expect(await waiting).toMatch(/after 0 ms/);
    tree.exportPci(0, "0000:00:00.00");
    sysfs.show("0000:00:00.0");
    expect(await wait("0000:03:00.0", 0)).toMatchObject({ vendor: 0x8086 });
    await clean();
  });
});

describe("nonsense", () => {
  it.each(["num_devs", "dev-0", "vdev-0"])("in %s is named", async (node) => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    daemon.set(`${tree.backend("pci", 0)}/${node}`, "999999 x");
    const error = await wait().catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(BadNode);
    expect(String(error)).toContain(`${node} holds "999999 x"`);
    await clean();
  });

  it("xenstore lost meanwhile", async () => {
    const waiting = wait();
    await quiet();
    bus.cutAfter(7);
    tree.pci("0000:03:00.0");
    await expect(waiting).rejects.toBeInstanceOf(ConnectionLost);
    await quiet();
    expect([clock.pending, sysfs.leaked]).toEqual([0, 0]);
  });

  it("a watch that is refused", async () => {
    daemon.refuse("watch", "device/pci", "EQUOTA");
    await expect(wait()).rejects.toMatchObject({ code: "EQUOTA" });
    await clean();
  });

  it("a device that goes while it is read", async () => {
    tree.pci("0000:03:00.0");
    tree.exportPci(0, "0000:00:00.00");
    sysfs.show("0000:00:00.0", new Uint8Array(2));
    await expect(wait()).rejects.toMatchObject({ code: "EIO" });
    await clean();
  });
});

describe("a chain of capabilities", () => {
  const of = (bytes: Uint8Array) =>
    readCapabilities((offset, length) =>
      bytes.slice(offset, offset + length).reduceRight((value, byte) => value * 256 + byte, 0),
    );
  it("is read in its order", () => {
    expect(of(configSpace({ capabilities: [1, 0x11, 0x10] }))).toEqual([1, 0x11, 0x10]);
  });
  it("is none without the status bit", () => {
    const bytes = configSpace({ capabilities: [1] });
    bytes[6] = 0;
    expect(of(bytes)).toEqual([]);
  });
  it("that runs in a circle ends", () => {
    const bytes = configSpace({ capabilities: [1, 5] });
    bytes[0x51] = 0x40;
    expect(of(bytes)).toHaveLength(48);
  });
  it("that leads into the header, or to nobody, ends", () => {
    const bytes = configSpace({ capabilities: [1, 5] });
    bytes[0x41] = 0x10;
    expect(of(bytes)).toEqual([1]);
    bytes[0x41] = 0x50;
    bytes.fill(0xff, 0x50, 0x52);
    expect(of(bytes)).toEqual([1]);
  });
});
