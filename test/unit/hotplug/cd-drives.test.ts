import { beforeEach, describe, expect, test } from "vitest";
import { CdDrives } from "../../../agent/hotplug/cd-drives.ts";
import { setsWith } from "../../../agent/hotplug/fdsets.ts";
import type { Logger } from "../../../agent/log/logger.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { QmpCommandError } from "../../../agent/qmp/errors.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeFdsets } from "../../fakes/fdsets.ts";
import { FakeFiles, fakePlatform } from "../../fakes/platform.ts";
import { home, StubdomTree, stubdomId } from "../../fakes/stubdom-tree.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

/** hdc */
const devid = 5632;
const front = `device/vbd/${devid}`;
const opaque = `stub-devid:${devid}`;
const emptyFile = "/var/run/xen/empty-cdrom.4";

let daemon: FakeXenstored;
let tree: StubdomTree;
let clock: FakeClock;
let files: FakeFiles;
let qemu: FakeFdsets;
let cds: CdDrives;
let lines: string[];
let complaints: string[];
/** Descriptor -> path of what the agent has open, and all that it ever opened. */
let open: Map<number, string>;
let opened: string[];
let unreadable: boolean;
let sequence: number;

async function quiet(): Promise<void> {
  for (let turn = 0; turn < 60; turn++) await settle();
}

/** libxl's part of the store, and what our kernel makes of it: `alive` connects, and its disk appears. */
async function attach(params: string, alive = true): Promise<void> {
  daemon.set(`${home}/${front}`, "", stubdomId);
  daemon.set(tree.backend("vbd", devid), "");
  tree.disk(devid, "hdc", { cdrom: true, mode: "r", params });
  if (!alive) return quiet();
  await settle();
  files.put("/dev/xvdc", "");
  files.put("/sys/block/xvdc/diskseq", `${sequence++}\n`);
  tree.state(front, 4);
  await quiet();
}

async function detach(): Promise<void> {
  daemon.set(`${tree.backend("vbd", devid)}/online`, "0");
  tree.backendState("vbd", devid, 5);
  await settle();
  if (daemon.get(`${home}/${front}/state`) === "4") tree.state(front, 6);
  if (files.exists("/dev/xvdc")) files.remove("/dev/xvdc");
  tree.backendState("vbd", devid, 6);
  await settle();
  daemon.remove(`${home}/${front}`);
  daemon.remove(tree.backend("vbd", devid));
}

/** What libxl does between the old medium and the new one; the set that it then finds, if there is one. */
async function change(params: string, alive = true): Promise<number | undefined> {
  const old = await qemu.execute("query-fdsets");
  for (const set of setsWith(opaque, old)) await qemu.execute("remove-fd", { "fdset-id": set });
  await detach();
  await attach(params, alive);
  return setsWith(opaque, await qemu.execute("query-fdsets"))[0];
}

/** What the agent has opened and handed over as this set. */
const deviceOf = (set: number | undefined) => opened[(qemu.sets.get(set ?? -1)?.fd ?? 0) - 50];

async function follow(started: readonly number[]): Promise<void> {
  const log: Logger = {
    debug() {},
    info: (_, line) => void lines.push(line),
    warn: (_, line) => void lines.push(line),
    error: (_, line) => void lines.push(line),
  };
  const openAs = (path: string) => {
    const fd = 50 + opened.push(path) - 1;
    open.set(fd, path);
    return fd;
  };
  const platform = fakePlatform({
    clock,
    files,
    storage: {
      openNoFollow(path, options) {
        expect(options).toEqual({ access: "read", nonBlocking: true });
        if (unreadable) throw new SystemError("EIO", "open", path);
        if (files.status(path).kind === "symlink") throw new SystemError("ELOOP", "open", path);
        return openAs(path);
      },
      deviceNumber(fd) {
        if (files.text(open.get(fd) ?? "") === "no device")
          throw new SystemError("ENOTBLK", "block device", String(fd));
        return { major: 202, minor: 32 };
      },
    },
    descriptors: {
      close: (fd) => void open.delete(fd),
      read: () => null,
      onReadable() {},
    },
    sockets: { kernelEvents: () => 9, pipe: () => [openAs("a pipe"), openAs("its other end")] },
  });
  const store = new XenstoreClient(daemon.connect(stubdomId), clock);
  const complain = (text: string) => void complaints.push(text);
  const warn = (text: string) => void lines.push(`late: ${text}`);
  const withdraw = (text: string) => void lines.push(`come: ${text}`);
  const patience = { notice: 4000, deadline: 12_000 };
  cds = new CdDrives({ platform, store, qmp: qemu, log, ...patience, started, warn, withdraw, complain });
  await cds.follow();
  await quiet();
}

beforeEach(() => {
  daemon = new FakeXenstored();
  tree = new StubdomTree(daemon);
  clock = new FakeClock();
  files = new FakeFiles();
  qemu = new FakeFdsets();
  lines = [];
  complaints = [];
  open = new Map();
  opened = [];
  unreadable = false;
  sequence = 1;
});

describe("a drive that QEMU was started with", () => {
  test("gets no set for its medium, and nothing is asked of QEMU", async () => {
    await attach("/iso/a");
    await follow([devid]);
    tree.state(front, 4);
    await quiet();
    expect([qemu.journal, opened, clock.pending]).toEqual([[], [], 0]);
  });

  test("a new medium is QEMU's to open, and only QEMU holds it", async () => {
    await attach("/iso/a");
    await follow([devid]);
    expect(deviceOf(await change("/iso/b"))).toBe("/dev/xvdc");
    expect(open.size).toBe(0);
    expect(lines).toEqual(["CD drive hdc has a new medium on /dev/xvdc: QEMU can open it as /dev/fdset/0"]);
    expect([complaints, clock.pending]).toEqual([[], 0]);
  });

  test("50 changes leave one set, no descriptor, no timer and one watch", async () => {
    await attach("/iso/a");
    await follow([devid]);
    for (let n = 0; n < 50; n++) {
      expect(deviceOf(await change(`/iso/${n}`))).toBe("/dev/xvdc");
      expect(deviceOf(await change(emptyFile))).toBe("a pipe");
    }
    expect(qemu.sets.size).toBe(1);
    expect(qemu.journal.filter((line) => line.startsWith("add-fd"))).toHaveLength(100);
    expect([open.size, clock.pending, daemon.watchCount, complaints]).toEqual([0, 0, 1, []]);
  });
});

describe("a drive that was empty", () => {
  test.each([
    ["a file that is kept empty", emptyFile],
    ["qdisk, which never connects", "aio:"],
  ])("%s: gets a medium", async (_, params) => {
    await attach(params, params === emptyFile);
    await follow([devid]);
    expect(qemu.journal).toEqual([]);
    expect(deviceOf(await change("/iso/a"))).toBe("/dev/xvdc");
  });

  test("is emptied again: libxl waits for a set then too, and the drive need not connect", async () => {
    await attach("aio:/iso/a");
    await follow([devid]);
    const first = await change("aio:", false);
    expect(deviceOf(first)).toBe("a pipe");
    // The one before was removed by libxl.
    expect(await change("aio:", false)).toBe(first);
    expect(opened.filter((path) => path.startsWith("/dev"))).toEqual([]);
    expect(open.size).toBe(0);
    expect(clock.pending).toBe(0);
  });
});

test("one event too many for one device takes no set away that may be in use", async () => {
  await follow([]);
  await attach("/iso/a");
  const { journal } = qemu;
  expect(qemu.sets.size).toBe(1);
  journal.length = 0;
  daemon.permit(`${home}/${front}`, [{ domid: stubdomId, access: "none" }]);
  await quiet();
  expect(journal).toEqual(["query-fdsets {}"]);
  expect(qemu.sets.size).toBe(1);
});

test("another disk in its place is another set, whoever forgot to remove the first", async () => {
  await follow([]);
  await attach("/iso/a");
  daemon.remove(`${home}/${front}`);
  await attach("/iso/b");
  expect([...qemu.sets.values()]).toEqual([{ opaque, fd: 51 }]);
});

test("who detaches the drive without a word to QEMU does not find it held", async () => {
  await follow([]);
  await attach("/iso/a");
  expect(qemu.sets.size).toBe(1);
  await detach();
  await quiet();
  expect(qemu.sets.size).toBe(0);
});

test("a drive that comes up late is offered then", async () => {
  await attach("/iso/a");
  await follow([devid]);
  expect(await change("/iso/b", false)).toBeUndefined();
  await clock.advance(3_999);
  expect(lines.filter((line) => line.startsWith("late"))).toEqual([]);
  await clock.advance(1);
  await quiet();
  expect(lines.at(-1)).toMatch(/^late: CD drive hdc .* is not connected after 4000 ms/);
  await clock.advance(8_000);
  await quiet();
  expect(complaints).toHaveLength(1);
  expect(complaints[0]).toMatch(
    /^CD drive device\/vbd\/5632: no new medium for the guest: CD drive hdc .* is not connected after 12000 ms.*; xl gives up after 40 s/,
  );
  files.put("/dev/xvdc", "");
  tree.state(front, 4);
  await quiet();
  expect(qemu.sets.size).toBe(1);
  expect(lines).toContain(`come: ${complaints[0]}`);
  expect(clock.pending).toBe(0);
});

test("a drive that comes after it was told of as late is told of as there", async () => {
  await attach("/iso/a");
  await follow([devid]);
  await change("/iso/b", false);
  await clock.advance(5_000);
  files.put("/dev/xvdc", "");
  tree.state(front, 4);
  await quiet();
  const late = lines.find((line) => line.startsWith("late: "))?.slice(6);
  expect(lines).toContain(`come: ${late}`);
  expect(qemu.sets.size).toBe(1);
  expect([complaints, clock.pending]).toEqual([[], 0]);
});

test("one that Linux takes for the one before is let go of, so that the next one can come", async () => {
  await attach("/iso/a");
  await follow([devid]);
  files.put(`/sys/bus/xen/devices/vbd-${devid}/state`, "Closed\n");
  await change("/iso/b", false);
  expect(daemon.get(`${home}/${front}/state`)).toBe("1");
  await clock.advance(4_000);
  await quiet();
  expect(daemon.get(`${home}/${front}/state`)).toBe("6");
  expect(complaints).toEqual([
    "CD drive device/vbd/5632: no new medium for the guest: our kernel takes CD drive hdc for the one that was there before and has closed; xl gives up after 40 s: then eject and insert again",
  ]);
  files.put(`/sys/bus/xen/devices/vbd-${devid}/state`, "Initialising\n");
  expect(deviceOf(await change("/iso/c"))).toBe("/dev/xvdc");
  expect(lines).toContain(`come: ${complaints[0]}`);
  expect([complaints.length, clock.pending]).toEqual([1, 0]);
});

test("an empty one that Linux takes for the one before is let go of, for whom comes next", async () => {
  await attach("/iso/a");
  await follow([devid]);
  files.put(`/sys/bus/xen/devices/vbd-${devid}/state`, "Closed\n");
  expect(deviceOf(await change(emptyFile, false))).toBe("a pipe");
  await clock.advance(3_999);
  expect(daemon.get(`${home}/${front}/state`)).toBe("1");
  await clock.advance(1);
  await quiet();
  expect(daemon.get(`${home}/${front}/state`)).toBe("6");
  expect([complaints, clock.pending]).toEqual([[], 0]);
});

test("an empty one that was let go of too late is not closed in the next one's stead", async () => {
  await attach("/iso/a");
  await follow([devid]);
  files.put(`/sys/bus/xen/devices/vbd-${devid}/state`, "Closed\n");
  await change(emptyFile, false);
  await clock.advance(3_000);
  daemon.set(`${home}/${front}/state`, "6");
  await change("/iso/b", false);
  await clock.advance(3_000);
  await quiet();
  expect(daemon.get(`${home}/${front}/state`)).toBe("1");
});

test("an old device that Linux drops while its state is read is no cause for a complaint", async () => {
  await attach("/iso/a");
  await follow([devid]);
  const read = files.readFile.bind(files);
  files.readFile = (path, limit) => {
    if (path === `/sys/bus/xen/devices/vbd-${devid}/state`) throw new SystemError("ENODEV", "read", path);
    return read(path, limit);
  };
  expect(deviceOf(await change(emptyFile, false))).toBe("a pipe");
  expect([complaints, clock.pending]).toEqual([[], 0]);
});

describe("the directory of a drive that libxl detaches", () => {
  const backend = () => tree.backend("vbd", devid);

  beforeEach(async () => {
    await attach("/iso/a");
    await follow([devid]);
    daemon.set(`${backend()}/online`, "0");
    tree.backendState("vbd", devid, 5);
    tree.state(front, 6);
    await quiet();
  });

  test("is removed as soon as the backend has ended, and not before: Linux has to find it gone", async () => {
    expect(daemon.get(`${home}/${front}/state`)).toBe("6");
    tree.backendState("vbd", devid, 6);
    await quiet();
    expect(daemon.get(`${home}/${front}`)).toBeUndefined();
    daemon.remove(backend());
    await attach("/iso/b");
    expect(deviceOf(setsWith(opaque, await qemu.execute("query-fdsets"))[0])).toBe("/dev/xvdc");
    expect([complaints, clock.pending, daemon.watchCount]).toEqual([[], 0, 1]);
  });

  test("is libxl's again where that was faster", async () => {
    daemon.onRequest = (request) => {
      if (!request.startsWith("transactionStart")) return;
      daemon.onRequest = () => {};
      daemon.remove(`${home}/${front}`);
      daemon.remove(backend());
      daemon.set(`${home}/${front}`, "", stubdomId);
      daemon.set(backend(), "");
      tree.disk(devid, "hdc", { cdrom: true, mode: "r", params: emptyFile });
    };
    tree.backendState("vbd", devid, 6);
    await quiet();
    expect(daemon.get(`${home}/${front}/state`)).toBe("1");
    expect([complaints, clock.pending]).toEqual([[], 0]);
  });

  test("goes with the backend's, where that goes first", async () => {
    daemon.remove(`${home}/${front}`);
    daemon.remove(backend());
    await quiet();
    expect([complaints, clock.pending, daemon.watchCount]).toEqual([[], 0, 1]);
  });

  test("stays where the backend never ends", async () => {
    await clock.advance(12_000);
    await quiet();
    expect(daemon.get(`${home}/${front}/state`)).toBe("6");
    expect([complaints, clock.pending, daemon.watchCount]).toEqual([[], 0, 1]);
  });
});

test("a drive that closes without being detached keeps its directory", async () => {
  await attach("/iso/a");
  await follow([devid]);
  tree.state(front, 6);
  tree.backendState("vbd", devid, 6);
  await quiet();
  expect(daemon.get(`${home}/${front}/state`)).toBe("6");
});

test("a drive that is detached before it came up is no fault", async () => {
  await attach("/iso/a");
  await follow([devid]);
  await change("/iso/b", false);
  await clock.advance(5_000);
  const late = lines.find((line) => line.startsWith("late: "))?.slice(6);
  expect(deviceOf(await change("/iso/c"))).toBe("/dev/xvdc");
  expect(lines).toContain(`come: ${late}`);
  await clock.advance(20_000);
  expect(complaints).toEqual([]);
  expect([clock.pending, daemon.watchCount]).toEqual([0, 1]);
});

test.each([
  ["all of it", [`${home}/${front}`]],
  ["its backend, by a driver domain", []],
])("a drive that is taken away while it is being read, %s, is no fault", async (_, others) => {
  await follow([]);
  const backend = tree.backend("vbd", devid);
  daemon.onRequest = (request) => {
    if (request !== `read ${backend}/mode`) return;
    daemon.onRequest = () => {};
    for (const path of [...others, backend]) daemon.remove(path);
  };
  await attach("/iso/a", false);
  expect(daemon.get(backend)).toBeUndefined();
  expect([qemu.journal, complaints]).toEqual([[], []]);
  await attach("/iso/b");
  expect(qemu.sets.size).toBe(1);
  expect(complaints).toEqual([]);
});

test("a medium that cannot be opened is named with what to do", async () => {
  await attach("/iso/a");
  await follow([devid]);
  unreadable = true;
  expect(await change("/iso/b")).toBeUndefined();
  expect(complaints).toEqual([
    "CD drive device/vbd/5632: no new medium for the guest: open /dev/xvdc: EIO; see dom0's kernel log about the image",
  ]);
});

test.each([
  ["a link", () => files.symlink("/proc/self/mem", "/dev/xvdc"), "open /dev/xvdc: ELOOP"],
  ["another file", () => files.put("/dev/xvdc", "no device"), "ENOTBLK"],
])("QEMU gets nothing of ours by %s in the device's place", async (_, replace, says) => {
  await attach("/iso/a");
  await follow([devid]);
  await change("/iso/b", false);
  replace();
  tree.state(front, 4);
  await quiet();
  expect(complaints).toEqual([expect.stringContaining(`${says}; QEMU has put it in the device's place`)]);
  expect([qemu.sets.size, open.size]).toEqual([0, 0]);
});

test("a second fault takes the place of the first, and the next medium withdraws it", async () => {
  await attach("/iso/a");
  await follow([devid]);
  unreadable = true;
  await change("/iso/b");
  unreadable = false;
  qemu.refusal = { command: "add-fd", error: new QmpCommandError("add-fd", "GenericError", "No") };
  await change("/iso/c");
  expect(complaints).toHaveLength(2);
  expect(lines).toEqual([`come: ${complaints[0]}`]);
  await change("/iso/d");
  expect(lines.slice(1, -1)).toEqual([`come: ${complaints[1]}`]);
});

test("a QEMU that refuses keeps no descriptor of ours open", async () => {
  await attach("/iso/a");
  await follow([devid]);
  qemu.refusal = { command: "add-fd", error: new QmpCommandError("add-fd", "GenericError", "No") };
  await change("/iso/b");
  expect(complaints[0]).toMatch(/QMP add-fd: GenericError: No; xl gives up after 40 s/);
  expect(open.size).toBe(0);
});

test("a QEMU that answers nonsense is named, and does no harm", async () => {
  await attach("/iso/a");
  await follow([devid]);
  for (const nonsense of [null, {}, [{}], [{ "fdset-id": "x", fds: [] }], [{ "fdset-id": 1 }], [3]]) {
    expect(() => setsWith(opaque, nonsense)).toThrow("query-fdsets");
  }
  expect(setsWith(opaque, [{ "fdset-id": 1, fds: [{ fd: 3 }, 7, { fd: 4, opaque: "other" }] }])).toEqual([]);
});

test("other disks are left alone, also one at a number that a CD drive had", async () => {
  await attach("/iso/a");
  await follow([devid]);
  await detach();
  daemon.set(`${home}/${front}`, "", stubdomId);
  tree.disk(devid, "hdc");
  tree.state(front, 4);
  daemon.set(`${home}/device/vbd/51728`, "", stubdomId);
  tree.disk(51728, "xvdb");
  tree.state("device/vbd/51728", 4);
  daemon.set(`${home}/device/vbd/junk`, "", stubdomId);
  await quiet();
  expect([qemu.journal, opened, complaints]).toEqual([[], [], []]);
});

test("the directory goes with its last device, and comes back with the next", async () => {
  await attach("/iso/a");
  await follow([devid]);
  daemon.remove(`${home}/device/vbd`);
  daemon.remove(tree.backend("vbd", devid));
  await quiet();
  await attach("/iso/b");
  expect(qemu.sets.size).toBe(1);
});

test("after its end it does nothing", async () => {
  await attach("/iso/a");
  await follow([devid]);
  cds.stop();
  cds.stop();
  expect(await change("/iso/b")).toBeUndefined();
  // Not even its watch is taken back: that would wait for a xenstored which may be stuck.
  expect([complaints, daemon.watchCount, clock.pending]).toEqual([[], 1, 0]);
});
