import { readdirSync, readFileSync } from "node:fs";
import { beforeEach, describe, expect, it } from "vitest";
import { decodeVirtualDevice, linuxBlockName } from "../../../agent/frontends/block.ts";
import { announcePrimaryConsole } from "../../../agent/frontends/console.ts";
import { allFrontends, discoverFrontends } from "../../../agent/frontends/discover.ts";
import { BadNode } from "../../../agent/frontends/errors.ts";
import { formatPciAddress } from "../../../agent/frontends/pci-address.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock } from "../../fakes/clock.ts";
import { home, StubdomTree, stubdomId } from "../../fakes/stubdom-tree.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

let daemon: FakeXenstored;
let tree: StubdomTree;
let client: XenstoreClient;

beforeEach(() => {
  daemon = new FakeXenstored({ reorder: true });
  tree = new StubdomTree(daemon);
  client = new XenstoreClient(daemon.connect(stubdomId), new FakeClock());
});

describe("the number of a vbd", () => {
  for (const [number, scheme, disk, partition, linux] of [
    [51712, "xvd", 0, 0, "xvda"],
    [51713, "xvd", 0, 1, "xvda1"],
    [51952, "xvd", 15, 0, "xvdp"],
    [51967, "xvd", 15, 15, "xvdp15"],
    [(1 << 28) | (16 << 8), "xvd", 16, 0, "xvdq"],
    [(1 << 28) | (25 << 8), "xvd", 25, 0, "xvdz"],
    [(1 << 28) | (26 << 8), "xvd", 26, 0, "xvdaa"],
    [(1 << 28) | (536 << 8) | 37, "xvd", 536, 37, "xvdtq37"],
    [(1 << 28) | (701 << 8), "xvd", 701, 0, "xvdzz"],
    [(1 << 28) | (702 << 8), "xvd", 702, 0, "xvdaaa"],
    [(1 << 28) | (0xfffff << 8) | 255, "xvd", 1048575, 255, "xvdbgqcv255"],
    [2048, "sd", 0, 0, "xvda"],
    [2048 + 19, "sd", 1, 3, "xvdb3"],
    [2048 + 240, "sd", 15, 0, "xvdp"],
    [768, "hd", 0, 0, "xvda"],
    [832, "hd", 1, 0, "xvdb"],
    [5632, "hd", 2, 0, "xvdc"],
    [5696, "hd", 3, 0, "xvdd"],
    [5632 + 2, "hd", 2, 2, "xvdc"],
  ] as const) {
    it(`${number} is ${scheme} disk ${disk} partition ${partition}, ${linux}`, () => {
      const decoded = decodeVirtualDevice(number);
      expect(decoded).toEqual({ scheme, disk, partition });
      expect(decoded && linuxBlockName(decoded)).toBe(linux);
    });
  }
  for (const number of [
    0,
    1,
    767,
    768 + 128,
    5632 + 255,
    65 << 8,
    2 ** 28 - 1,
    2 ** 29,
    2 ** 31,
    2 ** 32 - 1,
  ]) {
    it(`${number} is none`, () => expect(decodeVirtualDevice(number)).toBeUndefined());
  }
});

describe("discovery", () => {
  it("finds every kind, in the order of the numbers", async () => {
    tree.disk(51712, "xvda");
    tree.disk(768, "hda");
    tree.nic(1, "00:16:3E:AA:BB:CC");
    tree.nic(0, "00:16:3e:00:00:01");
    tree.console(3, "pty");
    tree.screen();
    tree.pci("0000:03:00.0", "0000:0A:1f.7");
    const found = await discoverFrontends(client);
    expect(found.disks.map(({ id, vdev, device }) => [id, vdev, device])).toEqual([
      [768, "hda", "/dev/xvda"],
      [51712, "xvda", "/dev/xvda"],
    ]);
    expect(found.nics.map(({ id }) => id)).toEqual([0, 1]);
    expect(found.consoles.map(({ id, purpose, awaited, device }) => [id, purpose, awaited, device])).toEqual([
      [0, "log", false, "/dev/hvc0"],
      [1, "save", false, "/dev/hvc1"],
      [2, "restore", false, "/dev/hvc2"],
      [3, "serial", true, "/dev/hvc3"],
    ]);
    expect(found.pci[0]?.devices.map(({ host }) => formatPciAddress(host))).toEqual([
      "0000:03:00.0",
      "0000:0a:1f.7",
    ]);
    expect(found.framebuffers).toHaveLength(1);
    expect(found.keyboards).toHaveLength(1);
    expect(allFrontends(found)).toHaveLength(2 + 2 + 1 + 1 + 1 + 4);
  });

  it("leaves out consoles that Linux has no terminal for", async () => {
    for (const id of [7, 8, 9]) tree.console(id, "pty");
    const { consoles } = await discoverFrontends(client);
    expect(consoles.map(({ id }) => id)).toEqual([0, 1, 2, 7]);
  });

  it("finds nothing but consoles where the guest has nothing", async () => {
    const found = await discoverFrontends(client);
    expect(allFrontends(found).map(({ kind }) => kind)).toEqual(["console", "console", "console"]);
  });

  for (const [what, params, empty] of [
    ["a qdisk backend without a file", "aio:", true],
    ["a backend without params", null, true],
    ["a backend with empty params", "", true],
    ["the file that Xen 4.20 keeps empty", "/var/run/xen/empty-cdrom.4", true],
    ["an image", "aio:/iso/debian.iso", false],
    ["a block device", "/dev/sr0", false],
  ] as const) {
    it(`takes a CD drive of ${what} for ${empty ? "empty" : "full"}`, async () => {
      tree.disk(5632, "hdc", { cdrom: true, mode: "r", params });
      const [drive] = (await discoverFrontends(client)).disks;
      expect(drive).toMatchObject({ cdrom: true, empty, awaited: !empty, label: "CD drive hdc" });
    });
  }

  it("never takes a disk for empty", async () => {
    tree.disk(768, "hda", { params: null });
    expect((await discoverFrontends(client)).disks[0]).toMatchObject({ empty: false, awaited: true });
  });

  for (const [what, node, value, message] of [
    ["a vbd number that is none", "device/vbd/abc/backend", "x", /device\/vbd\/abc holds "abc"/],
    [
      "a vbd number that is reserved",
      "device/vbd/16640/backend",
      "/local/domain/0/backend/vbd/5/16640",
      /an xvd, sd or hd disk/,
    ],
    ["a vbd number out of range", "device/vbd/4294967296/backend", "x", /up to 2147483647/],
    ["a strange device type", "device/vbd/768/device-type", "floppy", /"disk" or "cdrom"/],
    ["a backend that is no path", "device/vbd/5632/backend", "backend/vbd", /holds "backend\/vbd"/],
    [
      "a backend of no domain",
      "device/vbd/5632/backend",
      "/local/domain/70000/backend/vbd/5/5632",
      /belongs/,
    ],
    ["a backend of 4000 bytes", "device/vbd/5632/backend", "0".repeat(4000), /holds "0{80}"/],
    ["a device with a strange name", "device/vif/abc/mac", "x", /device\/vif\/abc/],
  ] as const) {
    it(`names node, value and remedy for ${what}`, async () => {
      tree.disk(768, "hda");
      tree.disk(5632, "hdc", { cdrom: true, mode: "r" });
      tree.nic(0, "00:16:3e:00:00:01");
      daemon.set(`${home}/${node}`, value, stubdomId);
      const error = await discoverFrontends(client).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(BadNode);
      expect(String(error)).toMatch(message);
      expect(String(error)).toMatch(/xenstore .* belongs; \S+/);
      expect(String(error).length).toBeLessThan(500);
    });
  }

  it("names a node that is missing", async () => {
    tree.disk(5632, "hdc", { cdrom: true, mode: "r" });
    daemon.remove(`${home}/device/vbd/5632/backend`);
    await expect(discoverFrontends(client)).rejects.toThrow(/device\/vbd\/5632\/backend is missing/);
  });

  it("names a strange mode and a strange PCI address in the backend", async () => {
    tree.disk(5632, "hdc", { cdrom: true, mode: "x" });
    await expect(discoverFrontends(client)).rejects.toThrow(/mode holds "x", where "r" or "w" belongs/);
    daemon.set(`${tree.backend("vbd", 5632)}/mode`, "w");
    tree.pci("03:00.8");
    await expect(discoverFrontends(client)).rejects.toThrow(/dev-0 holds "03:00.8"/);
  });

  it("refuses more devices than can be", async () => {
    for (let n = 0; n <= 128; n++) tree.nic(n, "00:16:3e:00:00:01");
    await expect(discoverFrontends(client)).rejects.toThrow(/129 devices.*at most 128/);
  });

  it("asks for everything that does not depend on an answer at once", async () => {
    tree.disk(768, "hda");
    tree.nic(0, "00:16:3e:00:00:01");
    await discoverFrontends(client);
    const at = (request: string) => daemon.requests.indexOf(request);
    expect(at("directory device/vif")).toBeLessThan(at("read device/vbd/768/device-type"));
    // The kinds, each's list, and whether a disk is one; Linux knows the backends, and libxl's arguments the rest.
    expect(daemon.requests).toHaveLength(1 + 3 + 1);
  });
});

describe("trees captured from xl", () => {
  const directory = new URL("../../golden/dm-argv/", import.meta.url);
  for (const file of readdirSync(directory).filter((name) => name.endsWith(".json"))) {
    it(`are understood: ${file}`, async () => {
      const golden = JSON.parse(readFileSync(new URL(file, directory), "utf8")) as {
        stubdom: number;
        target: number;
        argv: string[];
        xenstore: Record<string, string>;
      };
      const real = new FakeXenstored();
      for (const [node, value] of Object.entries(golden.xenstore)) {
        const text = value.replaceAll("STUBDOM", "5").replaceAll("TARGET", "4");
        real.set(`${home}/${node}`, text, stubdomId);
        if (!/^device\/vbd\/\d+\/backend$/.test(node)) continue;
        // The capture holds the stub domain's own tree; what is read of a disk's backend is put beside it.
        real.set(`${text}/mode`, "w", stubdomId);
        real.set(`${text}/params`, "aio:/image", stubdomId);
      }
      const found = await discoverFrontends(new XenstoreClient(real.connect(stubdomId), new FakeClock()));
      const drives = golden.argv.filter((argument) => argument.includes("file=/dev/xvd"));
      for (const { device } of found.disks) {
        const used = drives.some(
          (drive) => drive.includes(`file=${device},`) || drive.endsWith(`file=${device}`),
        );
        const unused = drives.length < found.disks.length;
        expect(used || unused).toBe(true);
      }
      for (const { id } of found.nics)
        expect(golden.argv.join(" ")).toContain(`ifname=vif${golden.target}.${id}-emu`);
      for (const { purpose, device } of found.consoles) {
        if (purpose === "serial") expect(golden.argv).toContain(device);
      }
    });
  }
});

it("the primary console is announced with one write to our own tree", async () => {
  await announcePrimaryConsole(client);
  expect(daemon.get(`${home}/console/state`)).toBe("4");
  expect(daemon.requests).toEqual(["write console/state"]);
});
