import { afterEach, beforeEach, expect, test } from "vitest";
import { Helper } from "../../../agent/dom0/helper.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { helperHome, requestNode, stateDevice } from "../../../agent/savestate/protocol.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import type { FakeXenHost } from "../../fakes/xen-host.ts";
import type { FakeXenstored } from "../../fakes/xenstored.ts";
import { qemuState } from "../savestate/support.ts";
import { HelperWorld, settings, until } from "./helper-world.ts";

let world: HelperWorld;
let host: FakeXenHost;
let daemon: FakeXenstored;

beforeEach(async () => {
  world = await HelperWorld.start();
  ({ host, daemon } = world);
});

afterEach(() => world.stop());

const startHelper: HelperWorld["startHelper"] = (...how) => world.startHelper(...how);
const stubdom: HelperWorld["stubdom"] = (...whose) => world.stubdom(...whose);
const saved = (target: number) => world.saved(target);
const expectNothingLeft = (domid: number) => world.expectNothingLeft(domid);

test("a state goes from QEMU to where libxl reads it, byte for byte", async () => {
  const { process } = await startHelper();
  host.addStubdom(5, 4);
  const state = qemuState(300_000, 1);
  const guest = stubdom(5, 4, state);
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  expect(await guest.save()).toEqual({});
  expect(Buffer.from(saved(4) ?? []).equals(Buffer.from(state))).toBe(true);
  expectNothingLeft(5);
  expect(guest.process.opened.size).toBe(0);
  // The lock alone.
  expect(process.opened.size).toBe(1);
  // A checkpoint later, with another state: the file is the new one.
  guest.qemu.state = qemuState(50_000, 2);
  await guest.save();
  expect(Buffer.from(saved(4) ?? []).equals(Buffer.from(guest.qemu.state))).toBe(true);
});

test("a state over the limit is refused, nothing is left, and a smaller one goes through after it", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(2 << 20, 1));
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  await expect(guest.save()).rejects.toThrow(
    /the limit for one stub domain is 1048576; raise the helper's --limit/,
  );
  expectNothingLeft(5);
  expect(saved(4)).toBeUndefined();
  guest.qemu.state = qemuState(1000, 1);
  await guest.save();
  expect(saved(4)?.length).toBe(1000);
});

test("a state may take the room that its own disk was granted, which it is written from", async () => {
  await startHelper();
  host.freeSpace = 1_200_000;
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(500_000, 1));
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  await guest.save();
  expect(saved(4)?.length).toBe(500_000);
});

test("a state that fits on its disk, and with its checksums would not when it comes back, is refused", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(settings.limit - 20_000, 1));
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  await expect(guest.save()).rejects.toThrow(
    /could not be restored: the limit .* is 1048576; raise the helper's --limit/,
  );
  expectNothingLeft(5);
  expect(saved(4)).toBeUndefined();
});

test("a state that is larger than the limit when it comes back is refused, with what to do", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  host.dom0Files.set("/var/lib/xen/qemu-resume.4", { bytes: new Uint8Array(settings.limit + 1) });
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  daemon.set(requestNode(5, 4), "1 1 restore", 5);
  await until(() => daemon.get(`${helperHome}/5/answer`)?.includes("refused") === true);
  expect(daemon.get(`${helperHome}/5/answer`)).toMatch(
    /has 1048577 bytes, the limit for one stub domain is 1048576; raise the helper's --limit$/,
  );
});

test("a second helper ends, and says what to do", async () => {
  await startHelper();
  await expect(startHelper()).rejects.toThrow(
    "another helper holds /var/lib/linux-stubdom/lock; end that one first",
  );
});

test("a helper that could make no disk does not start, and says what to do", async () => {
  const process = host.process(0);
  process.onStep = (step) => {
    if (step === "attach loop") throw new SystemError("ENOENT", "loop device for", "9");
  };
  const helper = new Helper(process.platform, process.connect(), silentLogger, settings, () => {});
  world.running.push({ helper, process });
  await expect(helper.start()).rejects.toThrow("ENOENT; see that dom0 has loop devices (modprobe loop)");
});

test("a lock that is held for a moment, by who asks whether a helper runs, keeps none from starting", async () => {
  host.locks.add(-1);
  const started = startHelper();
  setTimeout(() => host.locks.delete(-1), 50);
  await started;
  expect(daemon.get(helperHome)).toBeDefined();
});

test("one that is told to end while it waits for the lock leaves the other's nodes", async () => {
  await startHelper();
  const second = startHelper();
  second.catch(() => {});
  await world.running[1]?.helper.stop();
  expect(daemon.get(helperHome)).toBeDefined();
  await expect(second).rejects.toThrow("another helper holds");
});

test("a disk that is only asked to be as large as it is goes when its time is over", async () => {
  await startHelper({ idleLimit: 200 });
  host.addStubdom(5, 4);
  const xenstore = host.process(5).connect();
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  await xenstore.write(requestNode(5, 4), "1 1 save 1000");
  await until(() => daemon.get(`${helperHome}/5/answer`)?.includes("attached") === true);
  for (let i = 2; i < 100 && host.loops.length > 0; i++) {
    await xenstore.write(requestNode(5, 4), `1 ${i} grow 4096`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  xenstore.close();
  expectNothingLeft(5);
});

test("a helper that was restarted gives no disk to anybody before the last one's have been taken back", async () => {
  const first = await startHelper();
  host.addStubdom(5, 4);
  host.addStubdom(9, 8);
  host.stubborn.add(5);
  const left = `/local/domain/0/backend/vbd/5/${stateDevice.number}`;
  await until(() => [5, 9].every((domid) => daemon.get(`${helperHome}/${domid}/answer`) !== undefined));
  daemon.set(requestNode(5, 4), "1 77 save 1000", 5);
  await until(() => daemon.get(`${left}/state`) !== undefined);
  first.process.kill();
  host.hurry();
  daemon.set(requestNode(9, 8), "1 1 save 1000", 9);
  const stood: boolean[] = [];
  const process = host.process(0);
  process.onStep = (step) => {
    if (step === "truncate") stood.push(daemon.get(left) !== undefined);
  };
  const helper = new Helper(process.platform, process.connect(), silentLogger, settings, () => {});
  world.running.push({ helper, process });
  await helper.start();
  await until(() => stood.length > 0);
  expect(stood).toEqual([false]);
}, 20_000);

test("what a killed helper attached to a stub domain that has died since goes when the next one starts", async () => {
  const first = await startHelper();
  host.addStubdom(5, 4);
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  daemon.set(requestNode(5, 4), "1 77 save 1000", 5);
  await until(() => daemon.get(`/local/domain/0/backend/vbd/5/${stateDevice.number}/state`) === "4");
  first.process.kill();
  host.destroy(5, 4);
  await startHelper();
  expectNothingLeft(5);
});

test("a disk of a domain's own with the state disk's number stays, and its stub domain gets no state disk", async () => {
  host.addStubdom(5, 4);
  // A PV guest, and a guest's disk as its stub domain gets it.
  const nodes = [7, 5].flatMap((domid) => {
    const at = `${domid}/device/vbd/${stateDevice.number}`;
    const backend = `/local/domain/0/backend/vbd/${domid}/${stateDevice.number}`;
    daemon.setAll({
      [`/local/domain/${at}/backend`]: backend,
      [`${backend}/script`]: "/bin/true",
      [`${backend}/params`]: "/dev/vg/data",
      [`${backend}/state`]: "4",
      [`/libxl/${at}/backend`]: backend,
    });
    return [`/local/domain/${at}/backend`, `${backend}/params`, `/libxl/${at}/backend`];
  });
  const own = () => nodes.map((node) => daemon.get(node));
  const before = own();
  const { helper } = await startHelper();
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  daemon.set(requestNode(5, 4), "1 1 save 1000", 5);
  await until(() => daemon.get(`${helperHome}/5/answer`)?.includes("refused") === true);
  expect(daemon.get(`${helperHome}/5/answer`)).toMatch(
    /the guest has a disk xvdzz, the state disk's name; give it another in disk= of its configuration$/,
  );
  await helper.stop();
  expect(own()).toEqual(before);
  for (const domid of [7, 5])
    expect(daemon.get(`/local/domain/0/backend/vbd/${domid}/${stateDevice.number}/state`)).toBe("4");
  expect(host.loops).toEqual([]);
});

test("QEMU that dies in the middle: a failure, and nothing left", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(200_000, 1), 100_000);
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  await expect(guest.save()).rejects.toThrow(/QEMU was killed/);
  await until(() => host.loops.length === 0);
  expectNothingLeft(5);
  expect(saved(4)).toBeUndefined();
});

test("QEMU that has written its state and never says so: a failure after a minute, and nothing left", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(1000, 1));
  guest.qemu.silent = true;
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  host.hurry();
  await expect(guest.save()).rejects.toThrow(/has not said so for 60 s/);
  await until(() => host.loops.length === 0);
  expectNothingLeft(5);
  guest.qemu.silent = false;
  host.calm();
  await guest.save();
  expect(saved(4)?.length).toBe(1000);
}, 20_000);

test("what was asked of an earlier helper is not done again by the next", async () => {
  const first = await startHelper();
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(1000, 1));
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  await guest.save();
  // The last word of a transfer that failed is the request itself.
  daemon.set(requestNode(5, 4), "1 77 save 1000000", 5);
  await until(() => host.loops.length === 1);
  await first.helper.stop();
  first.process.kill();
  expectNothingLeft(5);
  const { process } = await startHelper();
  await until(() => daemon.get(`${helperHome}/5/answer`) === "1 0 ready");
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(process.steps).not.toContain("truncate");
  expectNothingLeft(5);
  await guest.save();
  expect(saved(4)?.length).toBe(1000);
});

test.each([
  ["who it is that asks", `read /local/domain/4/image/device-model-domid`, "1 1 save 1000"],
  ["who it is that has come", `read /local/domain/4/image/device-model-domid`, undefined],
  ["what an earlier helper left", `read ${helperHome}/5/answer`, undefined],
])("stopped while it asks %s, it attaches nothing and leaves no node", async (_, question, request) => {
  const process = host.process(0);
  const bus = daemon.connect(0);
  const client = new XenstoreClient(bus, host.clock);
  const helper = new Helper(process.platform, client, silentLogger, settings, () => {});
  let asked = false;
  const hold = () => {
    daemon.onRequest = (seen, domid) => {
      if (asked || domid !== 0 || seen !== question) return;
      asked = true;
      bus.hold();
    };
  };
  await helper.start();
  if (request === undefined) hold();
  host.addStubdom(5, 4);
  if (request !== undefined) {
    await until(() => daemon.get(`${helperHome}/5/answer`) === "1 0 ready");
    hold();
    daemon.set(requestNode(5, 4), request, 5);
  }
  await until(() => asked);
  const stopped = helper.stop();
  await new Promise((resolve) => setTimeout(resolve, 20));
  bus.release();
  await stopped;
  // Nor afterwards.
  await new Promise((resolve) => setTimeout(resolve, 50));
  client.close();
  expect(process.steps).not.toContain("truncate");
  expectNothingLeft(5);
  expect([daemon.get(helperHome), daemon.get(`${helperHome}/5`)]).toEqual([undefined, undefined]);
});

test("the stub domain is destroyed in the middle: the helper lets go of all of it", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(600_000, 1));
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  guest.process.onStep = (step) => {
    if (step !== `write ${stateDevice.name}`) return;
    guest.process.kill();
    host.destroy(5, 4);
  };
  await Promise.race([guest.save().catch(() => {}), new Promise((resolve) => setTimeout(resolve, 200))]);
  await until(() => daemon.get(`${helperHome}/5`) === undefined && host.loops.length === 0);
  expectNothingLeft(5);
  expect(saved(4)).toBeUndefined();
});

test("a frontend that never closes does not keep the disk", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  host.stubborn.add(5);
  const guest = stubdom(5, 4, qemuState(1000, 1));
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  host.hurry();
  await guest.save();
  expect(saved(4)?.length).toBe(1000);
  expectNothingLeft(5);
}, 20_000);

test("libxl gives the domain its first disk just when the state disk goes: it stays", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  const guest = stubdom(5, 4, qemuState(1000, 1));
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  const parent = "/local/domain/0/backend/vbd/5";
  let looked = 0;
  daemon.onRequest = (request) => {
    // After the look that finds the directory empty, before what follows from it.
    if (request === `remove ${parent}` && ++looked === 1) daemon.set(`${parent}/768/state`, "4");
  };
  await guest.save();
  expect(looked).toBeGreaterThan(0);
  expect(daemon.get(`${parent}/768/state`)).toBe("4");
});

test("a domain that no guest knows as its stub domain is not served", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  daemon.set("/local/domain/7/target", "4");
  host.addStubdom(9, 8);
  await until(() => daemon.get(`${helperHome}/9/answer`) !== undefined);
  expect(daemon.get(`${helperHome}/7/answer`)).toBeUndefined();
});

test("only its own domain can read an answer, and cannot write it", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  host.addStubdom(6, 3);
  await until(
    () =>
      daemon.get(`${helperHome}/5/answer`) !== undefined &&
      daemon.get(`${helperHome}/6/answer`) !== undefined,
  );
  const own = host.process(5).connect();
  expect(await own.readText(`${helperHome}/5/answer`)).toBe("1 0 ready");
  await expect(own.readText(`${helperHome}/6/answer`)).rejects.toThrow(/EACCES/);
  await expect(own.write(`${helperHome}/5/answer`, "1 0 ready")).rejects.toThrow(/EACCES/);
  own.close();
});

test("whatever is written to a request node, the helper goes on and touches no file", async () => {
  await startHelper();
  host.addStubdom(5, 4);
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  const before = [...host.dom0Files.keys()].sort();
  const own = host.process(5).connect();
  const nasty = [
    "",
    "1",
    "1 1 commit 5",
    "1 2 grow 99999",
    "1 3 save 9007199254740991",
    "x".repeat(2000),
    "1 4 restore",
    "1 5 save ../../etc/shadow",
    "\0\0",
    "2 9 save 1",
  ];
  const looks = () => daemon.requests.filter((request) => request === `read ${requestNode(5, 4)}`).length;
  // After each the helper rests.
  host.hurry();
  for (const text of nasty) {
    const seen = looks();
    await own.write(requestNode(5, 4), text);
    await until(() => looks() > seen);
  }
  host.calm();
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect([...host.dom0Files.keys()].sort()).toEqual(before);
  expect(host.loops).toEqual([]);
  await own.remove(requestNode(5, 4));
  own.close();
  const guest = stubdom(5, 4, qemuState(1000, 1));
  await guest.save();
  expect(saved(4)?.length).toBe(1000);
});

test("twenty stub domains save at once, one floods: the helper asks less than twice as much", async () => {
  await startHelper();
  const guests = Array.from({ length: 20 }, (_, i) => {
    host.addStubdom(100 + i, 200 + i);
    return stubdom(100 + i, 200 + i, qemuState(60_000, i));
  });
  host.addStubdom(99, 199);
  await until(() => guests.every((_, i) => daemon.get(`${helperHome}/${100 + i}/answer`) !== undefined));
  let asked = 0;
  daemon.onRequest = (_, domid) => {
    if (domid === 0) asked++;
  };
  const round = async () => {
    const before = asked;
    await Promise.all(guests.map((guest) => guest.save()));
    return asked - before;
  };
  const quiet = await round();
  const before = asked;
  const hostile = host.process(99).connect();
  let written = 0;
  let flooding = true;
  const flood = (async () => {
    while (flooding) {
      await hostile.write(requestNode(99, 199), `1 ${++written} save 99999999999`);
      // As fast as this process lets others run at all: in memory, nothing else slows a writer down.
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  // Were each looked at, that alone would be too much.
  await until(() => written > 2 * quiet);
  await round();
  const flooded = asked - before;
  flooding = false;
  await flood;
  hostile.close();
  for (const [i] of guests.entries()) expect(saved(200 + i)).toEqual(qemuState(60_000, i));
  expect(host.loops).toEqual([]);
  console.log(`dom0 asked ${quiet} times, under ${written} hostile writes ${flooded} times`);
  expect(flooded).toBeLessThan(2 * quiet);
}, 60_000);

test("a stub domain that asks again and again fills no log", async () => {
  const lines: string[] = [];
  const note = (_fields: object, message: string) => void lines.push(message);
  await startHelper({}, { ...silentLogger, info: note, warn: note });
  host.addStubdom(5, 4);
  const xenstore = host.process(5).connect();
  await until(() => daemon.get(`${helperHome}/5/answer`) !== undefined);
  for (let i = 1; i <= 80; i++) {
    await xenstore.write(requestNode(5, 4), `1 ${i} release`);
    await until(() => daemon.get(`${helperHome}/5/answer`)?.includes(` ${i} `) === true);
  }
  xenstore.close();
  expect(lines.filter((line) => line.includes("asks so often"))).toHaveLength(1);
  expect(lines.filter((line) => line.includes(": release")).length).toBeLessThan(65);
}, 60_000);

test("of one that keeps the helper busy, half of the time at most goes to transfers, and it hears so", async () => {
  const { process } = await startHelper();
  host.addStubdom(5, 4);
  // Each release takes five seconds.
  host.stubborn.add(5);
  const answer = () => daemon.get(`${helperHome}/5/answer`) ?? "";
  await until(() => answer() !== "");
  host.hurry(10);
  let heard = "";
  process.onStep = (step) => {
    if (step === "open temporary") heard = answer();
  };
  const began = host.clock.now();
  for (let n = 1; n < 9; n += 2) {
    daemon.set(requestNode(5, 4), `1 ${n} save 1000`, 5);
    await until(() => answer().startsWith(`1 ${n} attached`));
    daemon.set(requestNode(5, 4), `1 ${n + 1} release`, 5);
    await until(() => answer() === `1 ${n + 1} released`);
  }
  // Twenty of work, of which ten are free.
  expect(host.clock.now() - began).toBeGreaterThan(30_000);
  expect(heard).toMatch(/^1 7 working [1-9]$/);
}, 60_000);
