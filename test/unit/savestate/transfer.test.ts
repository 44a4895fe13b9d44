import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { Helper } from "../../../agent/dom0/helper.ts";
import { defaultSettings, type HelperSettings } from "../../../agent/dom0/settings.ts";
import { type Logger, silentLogger } from "../../../agent/log/logger.ts";
import { HelperLink } from "../../../agent/savestate/helper-link.ts";
import { answerNode, requestNode } from "../../../agent/savestate/protocol.ts";
import { type Incoming, openIncoming } from "../../../agent/savestate/restore.ts";
import { StateSaver } from "../../../agent/savestate/save.ts";
import { StateSums } from "../../../agent/savestate/tail.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, quiet } from "../../fakes/clock.ts";
import { FakeSavingQemu, FakeXenHost } from "../../fakes/xen-host.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";
import { xxh64 } from "../../fakes/xxh64.ts";
import { qemuState, randomBytes } from "./support.ts";

const S = 5;
const T = 4;
let host: FakeXenHost;
let daemon: FakeXenstored;
let helper: Helper | undefined;
let lines: string[];

async function setUp(clock?: FakeClock): Promise<void> {
  daemon = new FakeXenstored({ largestPiece: 4096 });
  host = new FakeXenHost(daemon, clock);
  await host.start();
  host.addStubdom(S, T);
  lines = [];
}

beforeEach(() => setUp());

afterEach(async () => {
  await helper?.stop();
  helper = undefined;
  host.stop();
});

async function startHelper(changed: Partial<HelperSettings> = {}, clock = host.clock) {
  const process = host.process(0);
  const settings = { ...defaultSettings, keepFree: 0, ...changed };
  const bus = daemon.connect(0);
  const platform = { ...process.platform, clock };
  helper = new Helper(platform, new XenstoreClient(bus, clock), silentLogger, settings, () => {});
  await helper.start();
  for (let i = 0; i < 500 && daemon.get(answerNode(S)) === undefined; i++) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  return { process, bus };
}

function stubdom() {
  const process = host.process(S);
  const note = (_: object, message: string) => void lines.push(message);
  const log: Logger = { ...silentLogger, info: note, warn: note, error: note };
  return {
    process,
    context: { platform: process.platform, xenstore: process.connect(), log, domid: S, target: T },
  };
}

/** A QEMU that lives on, whatever it does with the state. */
const lives = async () => null;

async function fed(guest: ReturnType<typeof stubdom>, incoming: Incoming): Promise<Uint8Array> {
  await incoming.feed(lives);
  incoming.close();
  return Uint8Array.from(guest.process.piped.get(incoming.descriptor) ?? []);
}

const resume = `/var/lib/xen/qemu-resume.${T}`;

test("over the disk and back: QEMU gets byte for byte what QEMU wrote", async () => {
  await startHelper();
  const state = qemuState(700_000, 3);
  const saving = stubdom();
  await new StateSaver(saving.context, new FakeSavingQemu(saving.process, state)).handler({});
  host.dom0Files.set(resume, { bytes: host.file(`/var/lib/xen/qemu-save.${T}`) ?? new Uint8Array(0) });
  const guest = stubdom();
  expect(Buffer.from(await fed(guest, await openIncoming(guest.context))).equals(Buffer.from(state))).toBe(
    true,
  );
  expect(lines.join("\n")).toMatch(/save: 700000 bytes of device state over the state disk/);
  expect(lines.join("\n")).toMatch(/restore: 700000 bytes of device state from the state disk, whole/);
});

test("changed on its way through libxl's stream: refused with the place, before QEMU starts", async () => {
  await startHelper();
  const saving = stubdom();
  const qemu = new FakeSavingQemu(saving.process, qemuState(200_000, 3));
  await new StateSaver(saving.context, qemu).handler({});
  const placed = host.file(`/var/lib/xen/qemu-save.${T}`) ?? new Uint8Array(0);
  const changed = placed.slice();
  changed[100_000] = (changed[100_000] ?? 0) ^ 1;
  host.dom0Files.set(resume, { bytes: changed });
  await expect(openIncoming(stubdom().context)).rejects.toThrow(
    /state refused, byte 65536: the checksum up to byte 131072 is/,
  );
});

test("over the consoles and back, told in the log", async () => {
  const state = qemuState(20_000, 4);
  const saving = stubdom();
  await new StateSaver(saving.context, new FakeSavingQemu(saving.process, state)).handler({});
  const carried = Uint8Array.from(saving.process.consoleOutput);
  // What follows the state pushes it through the console's ring.
  expect(carried.length - 20_000).toBeGreaterThan(8192);
  const guest = stubdom();
  guest.process.consoleInput = carried;
  expect(Buffer.from(await fed(guest, await openIncoming(guest.context))).equals(Buffer.from(state))).toBe(
    true,
  );
  expect(lines.join("\n")).toMatch(/over console 1/);
  expect(lines.join("\n")).toMatch(/restore: 20000 bytes of device state over console 2, whole/);
});

test("saved over the console, restored over the disk: QEMU's state alone", async () => {
  const state = qemuState(20_000, 5);
  const saving = stubdom();
  await new StateSaver(saving.context, new FakeSavingQemu(saving.process, state)).handler({});
  host.dom0Files.set(resume, { bytes: Uint8Array.from(saving.process.consoleOutput) });
  await startHelper();
  const guest = stubdom();
  expect(Buffer.from(await fed(guest, await openIncoming(guest.context))).equals(Buffer.from(state))).toBe(
    true,
  );
});

/** As the helper leaves it for libxl. */
function placed(state: Uint8Array): Uint8Array {
  const sums = new StateSums(xxh64);
  sums.add(state);
  return Buffer.concat([state, sums.tail()]);
}

test("saved over the disk, restored over the console: checked by what the helper has put behind it", async () => {
  const state = qemuState(300_000, 6);
  const guest = stubdom();
  guest.process.consoleInput = placed(state);
  // Its end is silence.
  host.hurry();
  expect(Buffer.from(await fed(guest, await openIncoming(guest.context))).equals(state)).toBe(true);
  expect(lines.join("\n")).toMatch(/restore: 300000 bytes of device state over console 2, whole/);
});

test.each([
  ["with nothing behind it", (file: Uint8Array) => file.subarray(0, 5_000), /byte 5000: no checksums stand/],
  ["cut off", (file: Uint8Array) => file.subarray(0, file.length - 1), /no checksums stand behind/],
  ["changed", (file: Uint8Array) => file.with(3_000, 1 ^ (file[3_000] ?? 0)), /byte 0: the checksum up to/],
])(
  "a bare state over console 2 that is %s is refused, and QEMU has not all of it",
  async (_, harm, message) => {
    const guest = stubdom();
    guest.process.consoleInput = harm(placed(qemuState(5_000, 6)));
    host.hurry();
    const incoming = await openIncoming(guest.context);
    await expect(incoming.feed(lives)).rejects.toThrow(message);
    expect(guest.process.piped.get(incoming.descriptor) ?? []).toHaveLength(0);
  },
);

test("QEMU's state alone, as QEMU in dom0 leaves it, is refused, and the way out named", async () => {
  host.dom0Files.set(resume, { bytes: qemuState(5_000, 6) });
  await startHelper();
  const opened = openIncoming(stubdom().context);
  await expect(opened).rejects.toThrow(/byte 5000: no checksums .*--accept-unchecked/);
});

test("QEMU's state alone is taken by a helper that was told so", async () => {
  const state = qemuState(5_000, 6);
  host.dom0Files.set(resume, { bytes: state });
  await startHelper({ acceptUnchecked: true });
  const guest = stubdom();
  expect(await fed(guest, await openIncoming(guest.context))).toEqual(state);
});

test("another guest's state is refused, over the disk and over the console", async () => {
  const saving = stubdom();
  await new StateSaver(saving.context, new FakeSavingQemu(saving.process, qemuState(3_000, 6))).handler({});
  const carried = Uint8Array.from(saving.process.consoleOutput);
  daemon.set(`/local/domain/${T}/vm`, "/vm/00000000-0000-0000-0000-00000000abcd");
  const guest = stubdom();
  guest.process.consoleInput = carried;
  const incoming = await openIncoming(guest.context);
  await expect(incoming.feed(lives)).rejects.toThrow(
    /byte 32: the state is of guest .*0004, this one is .*abcd/,
  );
  host.dom0Files.set(resume, { bytes: carried });
  await startHelper();
  await expect(openIncoming(stubdom().context)).rejects.toThrow(/byte 32: the state is of guest/);
});

test("a QEMU that writes without end is stopped on console 1", async () => {
  const guest = stubdom();
  const qemu = new FakeSavingQemu(guest.process, qemuState(70_000, 6));
  const saver = new StateSaver(guest.context, qemu, { mostOverConsole: 65_536 });
  await expect(saver.handler({})).rejects.toThrow("QEMU wrote more than 65536 bytes of state");
  expect(guest.process.consoleOutput.length).toBeLessThan(65_536);
});

test("what is no state of QEMU's is not taken for a guest that was saved", async () => {
  await startHelper();
  const foreign = stubdom();
  const garbage = new StateSaver(foreign.context, new FakeSavingQemu(foreign.process, randomBytes(5000, 9)));
  await expect(garbage.handler({})).rejects.toThrow("does not begin as a state of QEMU's");
  const empty = stubdom();
  const nothing = new StateSaver(empty.context, new FakeSavingQemu(empty.process, new Uint8Array(0)));
  await expect(nothing.handler({})).rejects.toThrow("wrote nothing");
  expect(host.file(`/var/lib/xen/qemu-save.${T}`)).toBeUndefined();
});

/** Until it has ended; time passes no faster than what happens in it, and for whom it passes. */
async function inTime<T>(work: Promise<T>, clocks: readonly FakeClock[]): Promise<T> {
  let over = false;
  work
    .catch(() => {})
    .finally(() => {
      over = true;
    });
  for (let passed = 0; ; passed += 500) {
    await quiet();
    if (over) return work;
    if (passed > 900_000) throw new Error("not over after 15 minutes");
    for (const clock of clocks) await clock.advance(500);
  }
}

/** As many bytes as a guest with the usual devices has. */
const realState = 211_335;

test.each([
  ["is never read", "readAt", realState, /cannot read byte 0 of the state disk: no answer for 60 s/],
  ["takes nothing", "writeAt", realState, /cannot write byte 8192 of the state disk: no answer for 60 s/],
  ["takes nothing, and has more to take", "writeAt", 900_000, /cannot write byte 12288 .* for 60 s/],
] as const)(
  "a state disk that %s: given up, and the next save goes through",
  async (_, call, size, message) => {
    const clock = new FakeClock();
    await setUp(clock);
    await startHelper();
    const guest = stubdom();
    const saver = new StateSaver(guest.context, new FakeSavingQemu(guest.process, qemuState(size, 7)));
    const { storage } = guest.process.platform;
    const working = storage[call];
    Object.assign(storage, { [call]: () => new Promise(() => {}) });
    await expect(inTime(saver.handler({}), [clock])).rejects.toThrow(message);
    expect(clock.now()).toBeLessThan(70_000);
    expect(lines.at(-1)).toMatch(/^save: failed: cannot /);
    Object.assign(storage, { [call]: working });
    await inTime(saver.handler({}), [clock]);
    expect(lines.at(-1)).toMatch(`save: ${size} bytes of device state over the state disk`);
  },
);

test("dom0's disk never takes the state: given up, and the next save goes through when it does", async () => {
  const clock = new FakeClock();
  await setUp(clock);
  const { storage } = (await startHelper()).process.platform;
  const guest = stubdom();
  const saver = new StateSaver(guest.context, new FakeSavingQemu(guest.process, qemuState(realState, 7)));
  const working = storage.writeAt;
  let recover = () => {};
  const recovered = new Promise<void>((resolve) => {
    recover = resolve;
  });
  const writeAt: typeof working = (...write) => recovered.then(() => working(...write));
  Object.assign(storage, { writeAt });
  const saving = inTime(saver.handler({}), [clock]);
  await expect(saving).rejects.toThrow(
    /has not done "commit" in 300 s; see dom0's kernel log about its disks/,
  );
  expect(clock.now()).toBeLessThan(330_000);
  expect(lines.at(-1)).toMatch(/^save: failed: dom0's helper has not done "commit"/);
  recover();
  await quiet();
  await inTime(saver.handler({}), [clock]);
  expect(lines.at(-1)).toMatch(/over the state disk/);
});

test("a helper that was stuck while it attached the disk takes it back when it goes on", async () => {
  const clock = new FakeClock();
  await setUp(clock);
  const own = new FakeClock();
  const clocks = [clock, own];
  const { bus } = await startHelper({}, own);
  const guest = stubdom();
  const saver = new StateSaver(guest.context, new FakeSavingQemu(guest.process, qemuState(realState, 7)));
  let held = false;
  daemon.onRequest = (request) => {
    if (held || !request.startsWith(`mkdir /libxl/${S}/`)) return;
    held = true;
    bus.hold();
    clocks.pop();
  };
  await expect(inTime(saver.handler({}), clocks)).rejects.toThrow(/does not answer "save" any more/);
  bus.release();
  clocks.push(own);
  await inTime(new Promise<void>((resolve) => void clock.setTimer(5_000, resolve)), clocks);
  expect(host.loops.length).toBe(0);
  await inTime(saver.handler({}), clocks);
  expect(lines.at(-1)).toMatch(/over the state disk in \d\./);
});

describe("a state disk that was attached for nobody", () => {
  let clock: FakeClock;
  let dom0: Awaited<ReturnType<typeof startHelper>>;
  let saver: StateSaver;

  beforeEach(async () => {
    clock = new FakeClock();
    await setUp(clock);
    dom0 = await startHelper();
    const { context, process } = stubdom();
    const earlier = new HelperLink(context.xenstore, clock, silentLogger, S, T);
    await inTime(earlier.ask({ verb: "save", bytes: 1 << 20 }, "attached"), [clock]);
    earlier.close();
    saver = new StateSaver(context, new FakeSavingQemu(process, qemuState(realState, 7)));
  });

  test("is given back before the next is asked for", async () => {
    await inTime(saver.handler({}), [clock]);
    expect(lines.at(-1)).toMatch(/over the state disk/);
  });

  test("and stays: what is to be done is told", async () => {
    helper = undefined;
    dom0.bus.close();
    dom0.process.kill();
    await expect(inTime(saver.handler({}), [clock])).rejects.toThrow(
      "/dev/xvdzz of an earlier transfer stays; start or restart dom0's helper: stubdom dom0 serve",
    );
  });
});

test("console 1 carries one state only", async () => {
  const guest = stubdom();
  const saver = new StateSaver(guest.context, new FakeSavingQemu(guest.process, qemuState(1000, 7)));
  await saver.handler({});
  await expect(saver.handler({})).rejects.toThrow(/stubdom dom0 serve/);
});

test("after a save that failed, libxl has removed console 1's file: the console is not used", async () => {
  const guest = stubdom();
  const qemu = new FakeSavingQemu(guest.process, qemuState(1000, 7), 0);
  const saver = new StateSaver(guest.context, qemu);
  await expect(saver.handler({})).rejects.toThrow(/QEMU was killed/);
  await expect(saver.handler({})).rejects.toThrow(/stubdom dom0 serve/);
});

describe("a save that a keeper refuses", () => {
  let told: string[];
  let why: string | Error | undefined;

  function saver(): { saver: StateSaver; guest: ReturnType<typeof stubdom> } {
    told = [];
    const guest = stubdom();
    const keeper = {
      keepsFromSaving: async () => {
        if (why instanceof Error) throw why;
        return why;
      },
    };
    return {
      guest,
      saver: new StateSaver(guest.context, new FakeSavingQemu(guest.process, qemuState(1000, 7)), {
        keepers: [keeper],
        complain: (text) => void told.push(text),
        withdraw: (text) => void told.push(`withdrawn: ${text}`),
      }),
    };
  }

  test("leaves nothing behind console 1: the next one does not take it for fresh", async () => {
    const kept = saver();
    why = "a device; detach it first";
    await expect(kept.saver.handler({})).rejects.toThrow("a device; detach it first");
    why = undefined;
    await expect(kept.saver.handler({})).rejects.toThrow(/stubdom dom0 serve/);
    expect(kept.guest.process.consoleOutput).toHaveLength(0);
  });

  test("is told once, until one goes through", async () => {
    await startHelper();
    const kept = saver();
    why = "a device; detach it first";
    await expect(kept.saver.handler({})).rejects.toThrow();
    why = new Error("QMP: no answer to qom-list within 5 s");
    await expect(kept.saver.handler({})).rejects.toThrow("no answer");
    const [first, second] = [
      "save: failed: a device; detach it first",
      "save: failed: QMP: no answer to qom-list within 5 s; see the lines above and those of dom0's helper",
    ];
    expect(told).toEqual([first, second, `withdrawn: ${first}`]);
    why = undefined;
    await kept.saver.handler({});
    expect(told.slice(3)).toEqual([`withdrawn: ${second}`]);
  });
});

test.each([
  ["has ended: its own words", new Error("QEMU exited with 1; see above"), "QEMU exited with 1; see above"],
  ["lives on", null, /^QEMU closed its end before it had the whole state; the guest is not started with it/],
])("a QEMU that closes its end of the state and %s", async (_, ended, message) => {
  const guest = stubdom();
  guest.process.consoleInput = placed(qemuState(20_000, 12));
  guest.process.pipesBroken = true;
  const incoming = await openIncoming(guest.context);
  await expect(incoming.feed(async () => ended)).rejects.toThrow(message);
});

test("a console that connects late is waited for, its terminal is nobody's before", async () => {
  const state = qemuState(3000, 12);
  const guest = stubdom();
  guest.process.consoleInput = placed(state);
  const node = `/local/domain/${S}/device/console/2/state`;
  daemon.set(node, "3");
  let opened = false;
  const opening = openIncoming(guest.context).then((incoming) => {
    opened = true;
    return incoming;
  });
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(opened).toBe(false);
  daemon.set(node, "4");
  host.hurry();
  expect(await fed(guest, await opening)).toEqual(state);
});

test("a console that never connects, or leads nowhere, is named before QEMU starts", async () => {
  daemon.set(`/local/domain/${S}/device/console/2/state`, "3");
  host.hurry();
  await expect(openIncoming(stubdom().context)).rejects.toThrow(/console 2 \(restore\)/);
  daemon.remove(`/local/domain/${S}/device/console/2/output`);
  await expect(openIncoming(stubdom().context)).rejects.toThrow(/no "output"; start dom0's helper/);
});

test.each([
  [
    "cut",
    (bytes: Uint8Array) => bytes.subarray(0, bytes.length - 8192 - 100),
    /state refused, byte \d+: ends/,
  ],
  ["changed", (bytes: Uint8Array) => bytes.with(9000, (bytes[9000] ?? 0) ^ 1), /checksum is/],
  ["empty", () => new Uint8Array(0), /console 2 gave no state; the guest is not started with it: restore it/],
  ["foreign", (bytes: Uint8Array) => bytes.fill(0x41), /neither a framed state nor QEMU's own .*; the guest/],
])("a state that comes %s over console 2 is refused", async (_, harm, message) => {
  const saving = stubdom();
  await new StateSaver(saving.context, new FakeSavingQemu(saving.process, qemuState(20_000, 8))).handler({});
  const guest = stubdom();
  guest.process.consoleInput = harm(Uint8Array.from(saving.process.consoleOutput));
  host.hurry();
  const incoming = await openIncoming(guest.context);
  await expect(incoming.feed(lives)).rejects.toThrow(message);
});

test.each([
  ["nothing", new Uint8Array(0), /holds neither/],
  ["something else", randomBytes(5000, 9), /holds neither/],
])("a restore file that holds %s is refused before QEMU starts", async (_, bytes, message) => {
  host.dom0Files.set(resume, { bytes });
  await startHelper();
  await expect(openIncoming(stubdom().context)).rejects.toThrow(message);
});

test("a helper that has died: the consoles, after three seconds, and the log says so", async () => {
  daemon.set(answerNode(S), "1 0 ready");
  daemon.permit(answerNode(S), [
    { domid: 0, access: "none" },
    { domid: S, access: "read" },
  ]);
  const guest = stubdom();
  host.hurry();
  await new StateSaver(guest.context, new FakeSavingQemu(guest.process, qemuState(1000, 10))).handler({});
  expect(guest.process.consoleOutput.length).toBeGreaterThan(1000);
  expect(lines.join("\n")).toMatch(/dom0's helper does not answer "save": state goes over console 1/);
  // One that is started later finds nothing to do.
  expect(daemon.get(requestNode(S, T))).toMatch(/^1 \d+ release$/);
});
