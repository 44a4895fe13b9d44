import { describe, expect, it } from "vitest";
import { type JointKind, NetworkJoiner } from "../../../../agent/frontends/net/joint.ts";
import type { Logger } from "../../../../agent/log/logger.ts";
import { FakeClock, settle } from "../../../fakes/clock.ts";
import { FakeFiles, fakePlatform } from "../../../fakes/platform.ts";
import { FakeRouteKernel, type LinkSketch } from "./route-kernel.ts";

const lo: LinkSketch = { index: 1, name: "lo", loopback: true };
const eth0: LinkSketch = { index: 2, name: "eth0", mac: "00:16:3e:00:00:02", mtu: 9000 };
const eth1: LinkSketch = { index: 3, name: "eth1", mac: "00:16:3e:00:00:01" };
const nic0 = { devid: 0, mac: "00:16:3e:00:00:01" };
const nic1 = { devid: 1, mac: "00:16:3E:00:00:02" };

function setUp(kind: JointKind, links: readonly LinkSketch[] = [lo, eth0, eth1], files = new FakeFiles()) {
  const kernel = new FakeRouteKernel(links);
  const lines: string[] = [];
  const line = (_fields: object, message: string) => void lines.push(message);
  const log: Logger = { debug: line, info: line, warn: line, error: line };
  const clock = new FakeClock();
  const platform = fakePlatform({ files, clock, descriptors: kernel.descriptors, sockets: kernel.sockets });
  return { kernel, lines, files, clock, joiner: new NetworkJoiner(platform, kind, log) };
}

describe("a joint by tc", () => {
  it("silences, joins, and only then brings up", async () => {
    const { kernel, joiner, lines } = setUp("tc");
    const [joint] = await joiner.joinAll([nic0]);
    expect(kernel.journal).toEqual([
      "get all",
      "set tap0 down noarp mtu 1500 queue 256",
      "set eth1 down noarp mtu 1500 queue 256",
      "ingress tap0",
      "redirect tap0 > eth1",
      "ingress eth1",
      "redirect eth1 > tap0",
      "set tap0 up",
      "set eth1 up",
    ]);
    expect(joint).toMatchObject({ nic: nic0, kind: "tc", front: { name: "eth1" }, tap: { name: "tap0" } });
    expect(kernel.taps.get(50)).toBe(joint?.descriptor);
    expect(lines).toEqual(["NIC 0 (00:16:3e:00:00:01): tap0 joined to eth1 by tc"]);
  });

  it("finds the TAP that was prepared before netfront was there", async () => {
    const { kernel, joiner } = setUp("tc");
    joiner.prepare([nic0]);
    expect(kernel.journal).toEqual([]);
    expect(kernel.taps.size).toBe(1);
    const [joint] = await joiner.joinAll([nic0]);
    expect(kernel.journal.slice(0, 2)).toEqual(["get all", "set tap0 down noarp mtu 1500 queue 256"]);
    expect(kernel.taps.get(50)).toBe(joint?.descriptor);
    await joiner.close();
    expect(kernel.taps.size).toBe(0);
  });

  it("closes what was prepared for a NIC that has no interface", async () => {
    const { kernel, joiner } = setUp("tc", [lo, eth0]);
    joiner.prepare([nic0]);
    await expect(joiner.joinAll([nic0])).rejects.toThrow(nic0.mac);
    expect(kernel.taps.size).toBe(0);
    joiner.prepare([nic0]);
    await joiner.close();
    expect(kernel.taps.size).toBe(0);
  });

  it("copies each NIC's MTU and keeps crossed NICs apart", async () => {
    const { kernel, joiner } = setUp("tc");
    const joints = await joiner.joinAll([nic0, nic1]);
    expect(joints.map(({ tap, front }) => [tap.name, front.name])).toEqual([
      ["tap0", "eth1"],
      ["tap1", "eth0"],
    ]);
    expect(kernel.journal).toContain("set tap1 down noarp mtu 9000 queue 256");
  });

  it("tells NICs of equal MAC apart by what sysfs calls their frontends", async () => {
    const files = new FakeFiles({
      "/sys/class/net/eth0/device/nodename": "device/vif/1\n",
      "/sys/class/net/eth1/device/nodename": "device/vif/0\n",
    });
    const twins = [lo, { ...eth0, mac: nic0.mac }, eth1];
    const { joiner } = setUp("tc", twins, files);
    const joints = await joiner.joinAll([nic0, { devid: 1, mac: nic0.mac }]);
    expect(joints.map(({ front }) => front.name)).toEqual(["eth1", "eth0"]);
  });

  it("takes IPv6 off both interfaces of a kernel that has it", async () => {
    const conf = "/proc/sys/net/ipv6/conf";
    const files = new FakeFiles({ [`${conf}/tap0/disable_ipv6`]: "0", [`${conf}/eth1/disable_ipv6`]: "0" });
    await setUp("tc", [lo, eth0, eth1], files).joiner.joinAll([nic0]);
    expect(files.text(`${conf}/tap0/disable_ipv6`)).toBe("1");
    expect(files.text(`${conf}/eth1/disable_ipv6`)).toBe("1");
  });

  it.each(["set tap0 up", "ingress tap0"])(
    "takes back what may have been done when nothing is heard of %j",
    async (step) => {
      const { kernel, joiner, clock } = setUp("tc");
      kernel.beforeEntry = (entry) => {
        if (entry === step) kernel.unheard = true;
        // The first that is undone.
        if (entry.includes(" down") && !entry.includes("noarp")) kernel.unheard = false;
        if (entry.startsWith("no ingress")) kernel.unheard = false;
      };
      const failed = expect(joiner.joinAll([nic0])).rejects.toThrow("ETIMEDOUT");
      await settle();
      await clock.advance(2000);
      await failed;
      expect([...kernel.links.values()].filter(({ up }) => up)).toEqual([]);
      const count = (word: string) => kernel.journal.filter((entry) => entry.startsWith(word)).length;
      expect([count("ingress"), count("no ingress")]).toEqual([2, 2]);
      expect(kernel.taps.size).toBe(0);
    },
  );

  it("can be torn down, twice too, and gives the descriptor back", async () => {
    const { kernel, joiner, lines } = setUp("tc");
    const [joint] = await joiner.joinAll([nic0]);
    kernel.journal.length = 0;
    await Promise.all([joint?.tearDown(), joint?.tearDown(), joint?.ended]);
    expect(kernel.journal).toEqual(["set eth1 down", "set tap0 down", "no ingress eth1", "no ingress tap0"]);
    expect(kernel.taps.size).toBe(0);
    expect(joiner.joints.size).toBe(0);
    expect(lines.at(-1)).toBe("NIC 0: tap0 and eth1 parted");
    // The interface can be joined again.
    expect(await joiner.joinAll([nic0])).toHaveLength(1);
  });

  it("leaves the TAP's descriptor to whoever starts QEMU with it", async () => {
    const { kernel, joiner } = setUp("tc");
    const [joint] = await joiner.joinAll([nic0]);
    joint?.handedOver();
    await joint?.tearDown();
    expect(kernel.taps.size).toBe(1);
  });
});

describe("a joint by bridge", () => {
  it("gives the ports another address than the guest's and takes that back at the end", async () => {
    const { kernel, joiner } = setUp("bridge");
    const [joint] = await joiner.joinAll([nic0]);
    expect(kernel.journal.slice(3)).toEqual([
      "new br0",
      "get br0",
      "set br0 down noarp mtu 1500 queue 256",
      "set tap0 address fefffffffffe master br0",
      "set eth1 address fefffffffffe master br0",
      "set br0 up",
      "set tap0 up",
      "set eth1 up",
    ]);
    kernel.journal.length = 0;
    await joint?.tearDown();
    expect(kernel.journal).toEqual([
      "set eth1 down",
      "set tap0 down",
      "set eth1 address 00163e000001",
      "delete br0",
    ]);
  });
});

describe("a joint by macvtap", () => {
  it("makes the TAP on the netfront, takes its queue from the device, and removes it at the end", async () => {
    const { kernel, joiner } = setUp("macvtap");
    const [joint] = await joiner.joinAll([nic0]);
    expect(kernel.journal).toEqual([
      "get all",
      "new tap0",
      "get tap0",
      "set tap0 down noarp mtu 1500 queue 256",
      "set eth1 down noarp mtu 1500 queue 256",
      "set tap0 allmulti",
      "set tap0 up",
      "set eth1 up",
    ]);
    expect(kernel.taps.get(50)).toBe(joint?.descriptor);
    await joint?.tearDown();
    expect(kernel.journal.slice(8)).toEqual(["set eth1 down", "set tap0 down", "delete tap0"]);
    expect(kernel.taps.size).toBe(0);
  });
});

describe.each(["tc", "bridge"] as const)("when something goes wrong, a joint by %s", (kind) => {
  it("leaves nothing behind wherever it fails", async () => {
    const rehearsal = setUp(kind);
    await rehearsal.joiner.joinAll([nic0, nic1]);
    const steps = rehearsal.kernel.journal;
    for (const [n, step] of steps.entries()) {
      const { kernel, joiner, lines } = setUp(kind);
      kernel.refusals.set(step, 1);
      await expect(joiner.joinAll([nic0, nic1]), step).rejects.toThrow("EPERM");
      expect(kernel.journal.slice(0, n + 1), step).toEqual(steps.slice(0, n + 1));
      expect(joiner.joints.size, step).toBe(0);
      expect(kernel.taps.size, step).toBe(0);
      const left = [...kernel.links.values()].filter(({ up }) => up);
      expect(left, step).toEqual([]);
      expect(kernel.journal.filter((entry) => entry.startsWith("ingress")).length, step).toBe(
        kernel.journal.filter((entry) => entry.startsWith("no ingress")).length +
          (step.startsWith("ingress") ? 1 : 0),
      );
      expect(
        lines.filter((line) => line.includes("EPERM")),
        step,
      ).toEqual([]);
    }
  });

  it("ends by itself when netfront or the TAP goes away", async () => {
    for (const [gone, line] of [
      ["eth1", "NIC 0: its frontend eth1 is gone, the guest's link is cut"],
      ["tap0", "NIC 0: QEMU let go of tap0"],
    ] as const) {
      const { kernel, joiner, lines } = setUp(kind);
      const [joint] = await joiner.joinAll([nic0]);
      kernel.remove(gone);
      await joint?.ended;
      expect(joiner.joints.size).toBe(0);
      expect([...kernel.links.values()].filter(({ up }) => up)).toEqual([]);
      expect(lines).toContain(line);
      expect(lines.at(-1)).toBe("NIC 0: tap0 and eth1 parted");
      expect(lines.filter((line) => line.includes("ENODEV"))).toEqual([]);
    }
  });

  it("fails cleanly when netfront goes away at any step of the joining", async () => {
    const rehearsal = setUp(kind);
    await rehearsal.joiner.joinAll([nic0]);
    for (const step of rehearsal.kernel.journal.slice(1)) {
      const { kernel, joiner } = setUp(kind);
      kernel.beforeEntry = (entry) => {
        if (entry === step && kernel.links.has(3)) kernel.remove("eth1");
      };
      await expect(joiner.joinAll([nic0]), step).rejects.toThrow("ENODEV");
      await settle();
      expect(joiner.joints.size, step).toBe(0);
      expect(kernel.taps.size, step).toBe(0);
      expect(
        [...kernel.links.values()].map(({ name }) => name),
        step,
      ).toEqual(["lo", "eth0"]);
    }
  });

  it("names a NIC that has no interface, before it makes anything", async () => {
    const { kernel, joiner } = setUp(kind);
    await expect(joiner.joinAll([nic0, { devid: 5, mac: "00:16:3e:00:00:55" }])).rejects.toThrow(
      "NIC 5 with MAC 00:16:3e:00:00:55: no interface has that MAC; there are eth0",
    );
    expect(kernel.journal).toEqual(["get all"]);
  });

  it("ends all joints and the socket on close", async () => {
    const { kernel, joiner } = setUp(kind);
    await joiner.joinAll([nic0, nic1]);
    await joiner.close();
    await joiner.close();
    expect(joiner.joints.size).toBe(0);
    expect(kernel.socketClosed).toBe(true);
  });
});
