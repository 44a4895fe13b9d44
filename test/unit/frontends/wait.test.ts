import { beforeEach, describe, expect, it } from "vitest";
import { allFrontends, discoverFrontends, type Frontends } from "../../../agent/frontends/discover.ts";
import { BadNode, NotConnected } from "../../../agent/frontends/errors.ts";
import { type FrontendOutcome, waitForFrontends } from "../../../agent/frontends/wait.ts";
import type { Platform } from "../../../agent/platform/port.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { ConnectionLost } from "../../../agent/xenstore/errors.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeFiles, fakePlatform } from "../../fakes/platform.ts";
import { home, StubdomTree, stubdomId } from "../../fakes/stubdom-tree.ts";
import { type FakeXenbus, FakeXenstored } from "../../fakes/xenstored.ts";

let daemon: FakeXenstored;
let tree: StubdomTree;
let bus: FakeXenbus;
let clock: FakeClock;
let client: XenstoreClient;
let files: FakeFiles;
let platform: Platform;
/** The socket of the kernel's events: what waits in it, and who is called. */
let events: { waiting: number; ready: (() => void) | null; open: boolean; opened: number };

/** What devtmpfs and sysfs show changes, and then the kernel says so. */
function announce(path: string): void {
  files.put(path, "");
  if (!events.open) return;
  events.waiting++;
  events.ready?.();
}

beforeEach(() => {
  daemon = new FakeXenstored();
  tree = new StubdomTree(daemon);
  bus = daemon.connect(stubdomId);
  clock = new FakeClock();
  client = new XenstoreClient(bus, clock);
  files = new FakeFiles();
  events = { waiting: 0, ready: null, open: false, opened: 0 };
  platform = fakePlatform({
    files,
    sockets: {
      kernelEvents() {
        events.open = true;
        events.opened++;
        return 9;
      },
    },
    descriptors: {
      onReadable(fd, ready) {
        expect([fd, events.open]).toEqual([9, true]);
        events.ready = ready;
      },
      read: () => (events.waiting-- > 0 ? 40 : null),
      close(fd) {
        expect([fd, events.ready]).toEqual([9, null]);
        events.open = false;
      },
    },
  });
});

const awaited = (found: Frontends) => allFrontends(found).filter((frontend) => frontend.awaited);

function failure(outcome: FrontendOutcome | undefined): string {
  if (outcome === undefined || outcome.connected) throw new Error("it connected");
  return outcome.error.message;
}

describe("waiting for frontends", () => {
  it("is over at once when there are none", async () => {
    expect(await waitForFrontends(client, platform, [])).toEqual([]);
    expect(daemon.requests).toEqual([]);
  });

  it("sees those that are connected already, with their Linux devices", async () => {
    tree.disk(768, "hda");
    tree.nic(0, "00:16:3e:00:00:01");
    tree.screen();
    tree.pci("0000:03:00.0");
    files.put("/dev/xvda", "");
    tree.console(3, "pty");
    files.put("/dev/hvc3", "");
    files.put("/dev/fb0", "");
    files.put("/dev/input/event1", "");
    files.put("/sys/bus/xen/devices/vif-0/net/eth3/address", "");
    files.put("/sys/bus/xen/devices/vfb-0/graphics/fb0/dev", "");
    files.put("/sys/class/input/input0/phys", "isa0060/serio0\n");
    files.put("/sys/class/input/input0/event0/dev", "");
    files.put("/sys/class/input/input1/phys", "xenbus/device/vkbd/0\n");
    files.put("/sys/class/input/input1/event1/dev", "");
    files.put("/sys/bus/pci/devices/0000:00:00.0/vendor", "");
    for (const path of ["vbd/768", "vif/0", "vfb/0", "vkbd/0", "pci/0", "console/3"]) {
      tree.state(`device/${path}`, 4);
    }
    const outcomes = await waitForFrontends(client, platform, awaited(await discoverFrontends(client)));
    expect(outcomes.map((o) => [o.frontend.path, o.connected ? o.devices : o.error.message])).toEqual([
      ["device/vbd/768", ["/dev/xvda"]],
      ["device/vif/0", ["eth3"]],
      ["device/vfb/0", ["/dev/fb0"]],
      ["device/vkbd/0", ["/dev/input/event1"]],
      ["device/pci/0", ["0000:00:00.0"]],
      ["device/console/3", ["/dev/hvc3"]],
    ]);
    await settle();
    expect(clock.pending).toBe(0);
    expect(daemon.watchCount).toBe(0);
    // No watch is needed for what is there.
    expect(daemon.requests.filter((request) => request.startsWith("watch"))).toEqual([]);
  });

  it("waits through all states, without a timer but the deadline's", async () => {
    tree.disk(768, "hda");
    files.put("/dev/xvda", "");
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks);
    await clock.advance(1000);
    expect(clock.pending).toBe(1);
    tree.state("device/vbd/768", 3);
    await clock.advance(500);
    tree.state("device/vbd/768", 4);
    expect(await waiting).toMatchObject([
      { connected: true, devices: ["/dev/xvda"], milliseconds: 1500, waited: 1500 },
    ]);
  });

  it("counts as waited only what passed after a look in vain", async () => {
    tree.disk(768, "hda");
    tree.nic(0, "00:16:3e:00:00:01");
    tree.state("device/vbd/768", 4);
    tree.state("device/vif/0", 2);
    files.put("/dev/xvda", "");
    files.put("/sys/bus/xen/devices/vif-0/net/eth0/address", "");
    const found = await discoverFrontends(client);
    bus.hold();
    const waiting = waitForFrontends(client, platform, [...found.disks, ...found.nics]);
    await clock.advance(300);
    bus.release();
    await clock.advance(200);
    tree.state("device/vif/0", 4);
    expect(await waiting).toMatchObject([
      { milliseconds: 300, waited: 0 },
      { milliseconds: 500, waited: 200 },
    ]);
  });

  it("needs no word of the kernel's about what is there already", async () => {
    tree.disk(768, "hda");
    files.put("/dev/xvda", "");
    tree.state("device/vbd/768", 4);
    const { disks } = await discoverFrontends(client);
    await waitForFrontends(client, platform, disks);
    expect(events.opened).toBe(0);
  });

  it("gives Linux the moment that it needs between Connected and the device, by the kernel's word", async () => {
    tree.disk(768, "hda");
    tree.disk(832, "hdb");
    tree.state("device/vbd/768", 4);
    tree.state("device/vbd/832", 4);
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks);
    await clock.advance(5);
    announce("/dev/null");
    await clock.advance(5);
    // The deadlines alone.
    expect(clock.pending).toBe(2);
    announce("/dev/xvdb");
    await clock.advance(10);
    announce("/dev/xvda");
    expect(await waiting).toMatchObject([
      { connected: true, milliseconds: 20 },
      { connected: true, milliseconds: 10 },
    ]);
    await settle();
    expect(clock.pending).toBe(0);
    expect(events).toMatchObject({ open: false, opened: 1 });
  });

  it("sees what came while the socket was being opened", async () => {
    tree.disk(768, "hda");
    tree.state("device/vbd/768", 4);
    const { disks } = await discoverFrontends(client);
    const { kernelEvents } = platform.sockets;
    platform.sockets.kernelEvents = () => {
      files.put("/dev/xvda", "");
      return kernelEvents();
    };
    expect(await waitForFrontends(client, platform, disks)).toMatchObject([{ connected: true }]);
    expect(events.open).toBe(false);
  });

  it("does not take the word for a frontend that has fallen back", async () => {
    tree.disk(768, "hda");
    tree.state("device/vbd/768", 4);
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks, 3000);
    await clock.advance(5);
    tree.state("device/vbd/768", 3);
    await clock.advance(5);
    announce("/dev/xvda");
    await clock.advance(3000);
    expect(failure((await waiting)[0])).toMatch(/state 3/);
    expect(events.open).toBe(false);
  });

  it("looks again, when a state changes while it is being read", async () => {
    tree.disk(768, "hda");
    files.put("/dev/xvda", "");
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks);
    for (const state of [1, 2, 3, 4]) {
      tree.state("device/vbd/768", state);
      await Promise.resolve();
    }
    expect(await waiting).toMatchObject([{ connected: true }]);
  });
});

describe("waiting before it is known for what", () => {
  async function twoDisks() {
    tree.disk(768, "hda");
    tree.disk(832, "hdb");
    files.put("/dev/xvda", "");
    return (await discoverFrontends(client)).disks;
  }

  it("is over when those that are needed have connected, however the others fare", async () => {
    const disks = await twoDisks();
    tree.state("device/vbd/768", 4);
    const needed = new Promise<typeof disks>((resolve) =>
      clock.setTimer(50, () => resolve(disks.slice(0, 1))),
    );
    const waiting = waitForFrontends(client, platform, disks, 3000, needed);
    await clock.advance(50);
    // It had connected long before anybody knew that it counts.
    expect(await waiting).toMatchObject([{ connected: true, devices: ["/dev/xvda"], milliseconds: 0 }]);
    await settle();
    expect([clock.pending, daemon.watchCount]).toEqual([0, 0]);
  });

  it("ends with what keeps that from being known", async () => {
    const disks = await twoDisks();
    const waiting = waitForFrontends(
      client,
      platform,
      disks,
      3000,
      Promise.reject(new Error("no arguments")),
    );
    await expect(waiting).rejects.toThrow("no arguments");
    await settle();
    expect([clock.pending, daemon.watchCount]).toEqual([0, 0]);
  });

  it("counts a deadline that comes later from the start", async () => {
    const disks = await twoDisks();
    const patience = new Promise<number>((resolve) => clock.setTimer(1000, () => resolve(3000)));
    const waiting = waitForFrontends(client, platform, disks.slice(0, 1), patience);
    await clock.advance(2999);
    expect(clock.pending).toBe(1);
    await clock.advance(1);
    expect(failure((await waiting)[0])).toMatch(/after 3000 ms/);
    expect(clock.pending).toBe(0);
  });
});

describe("a device that does not come up", () => {
  it("is named at the deadline with both states and what to do, the others are not held up by it", async () => {
    tree.disk(768, "hda");
    tree.disk(832, "hdb");
    tree.backendState("vbd", 832, 2);
    files.put("/dev/xvda", "");
    tree.state("device/vbd/768", 4);
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks, 3000);
    await clock.advance(3000);
    const [first, second] = await waiting;
    expect(first).toMatchObject({ connected: true, milliseconds: 0 });
    expect(failure(second)).toBe(
      "disk hdb (device/vbd/832) is not connected after 3000 ms: frontend state 1 (Initialising), " +
        "backend /local/domain/0/backend/vbd/5/832 state 2 (InitWait); the backend waits for its hotplug script in dom0, " +
        "or our kernel lacks the frontend: see /var/log/xen/xen-hotplug.log in dom0",
    );
    expect(clock.pending).toBe(0);
    await settle();
    expect(daemon.watchCount).toBe(0);
  });

  it("is a NIC whose backend nobody takes up", async () => {
    tree.nic(0, "00:16:3e:00:00:01");
    const { nics } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, nics, 3000);
    await clock.advance(3000);
    expect(failure((await waiting)[0])).toMatch(
      /network interface 0 \(device\/vif\/0\).*state 1.*its MAC is "00:16:3e:00:00:01".*xen-netback is loaded/,
    );
  });

  it("is a screen that dom0's QEMU does not serve: the line that helps is named", async () => {
    tree.screen();
    tree.state("device/vfb/0", 3);
    const { framebuffers } = await discoverFrontends(client);
    expect(framebuffers[0]?.essential).toBe(false);
    const waiting = waitForFrontends(client, platform, framebuffers, 3000);
    await clock.advance(3000);
    expect(failure((await waiting)[0])).toContain(
      'put device_model_args_pv = [ "-vga", "xenfb" ] and vnc = 1 into the guest',
    );
  });

  for (const state of [5, 6]) {
    it(`is given up at once in state ${state}, with what was said about it`, async () => {
      tree.disk(768, "hda");
      const { disks } = await discoverFrontends(client);
      const waiting = waitForFrontends(client, platform, disks, 3000);
      await settle();
      daemon.set(`${home}/error/device/vbd/768/error`, "-16 xlvbd_add at backend", stubdomId);
      daemon.set(`${tree.backend("vbd", 768)}/hotplug-error`, "/disk.img does not exist.");
      tree.backendState("vbd", 768, 6);
      tree.state("device/vbd/768", state);
      const message = failure((await waiting)[0]);
      expect(message).toContain(`after 0 ms: frontend state ${state}`);
      expect(message).toContain('our kernel says "-16 xlvbd_add at backend"');
      expect(message).toContain('the hotplug script says "/disk.img does not exist."');
      expect(message).toContain("the backend has closed");
      await settle();
      expect(clock.pending).toBe(0);
    });
  }

  it("has lost its backend altogether", async () => {
    tree.disk(768, "hda");
    const { disks } = await discoverFrontends(client);
    daemon.remove(tree.backend("vbd", 768));
    const waiting = waitForFrontends(client, platform, disks, 3000);
    await clock.advance(3000);
    expect(failure((await waiting)[0])).toMatch(/state missing.*the backend is gone/);
  });

  it("was taken away while it was waited for", async () => {
    tree.disk(768, "hda");
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks, 3000);
    await settle();
    daemon.remove(`${home}/device/vbd/768`);
    await clock.advance(3000);
    expect(failure((await waiting)[0])).toMatch(/frontend state missing/);
  });

  it("says Connected, but Linux shows nothing", async () => {
    tree.disk(768, "hda");
    tree.state("device/vbd/768", 4);
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks, 3000);
    await clock.advance(3000);
    expect(failure((await waiting)[0])).toMatch(/Linux shows no device/);
    expect(clock.pending).toBe(0);
    expect(events.open).toBe(false);
  });

  for (const nonsense of ["", "x", "9", "4 ", "99999999999999999999"]) {
    it(`has ${JSON.stringify(nonsense)} for a state: that device alone fails`, async () => {
      tree.disk(768, "hda");
      tree.disk(832, "hdb");
      files.put("/dev/xvdb", "");
      tree.state("device/vbd/832", 4);
      daemon.set(`${home}/device/vbd/768/state`, nonsense, stubdomId);
      const { disks } = await discoverFrontends(client);
      const [first, second] = await waitForFrontends(client, platform, disks);
      expect(first).toMatchObject({ connected: false });
      expect(first?.connected === false && first.error).toBeInstanceOf(BadNode);
      expect(second).toMatchObject({ connected: true });
    });
  }

  it("is reported by a typed error", async () => {
    tree.nic(0, "00:16:3e:00:00:01");
    const { nics } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, nics, 100);
    await clock.advance(100);
    const [outcome] = await waiting;
    expect(outcome?.connected === false && outcome.error).toBeInstanceOf(NotConnected);
  });
});

describe("xenstore itself failing meanwhile", () => {
  it("rejects with the lost connection and leaves no timer", async () => {
    tree.disk(768, "hda");
    const { disks } = await discoverFrontends(client);
    const waiting = waitForFrontends(client, platform, disks);
    await settle();
    bus.cutAfter(7);
    tree.state("device/vbd/768", 3);
    await expect(waiting).rejects.toBeInstanceOf(ConnectionLost);
    expect(clock.pending).toBe(0);
  });

  it("rejects when the watch is refused", async () => {
    tree.disk(768, "hda");
    const { disks } = await discoverFrontends(client);
    daemon.refuse("watch", "device", "EQUOTA");
    await expect(waitForFrontends(client, platform, disks)).rejects.toMatchObject({ code: "EQUOTA" });
    expect(clock.pending).toBe(0);
  });
});
