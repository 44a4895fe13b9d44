import { beforeEach, expect, it } from "vitest";
import { decodeText } from "../../../agent/bytes/text.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { ConnectionLost, RequestTimedOut, XenstoreError } from "../../../agent/xenstore/errors.ts";
import { SideBySide } from "../../../agent/xenstore/side-by-side.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { fakePlatform } from "../../fakes/platform.ts";
import { FakeXenbusDescriptors } from "../../fakes/xenbus-descriptors.ts";
import { type FakeXenbus, FakeXenstored } from "../../fakes/xenstored.ts";

const self = 5;
const paths = Array.from({ length: 30 }, (_, i) => `/argv/${i}`);

let daemon: FakeXenstored;
let clock: FakeClock;
let opened: FakeXenbus[];
let descriptors: FakeXenbusDescriptors;
/** Done to each connection, by its place. */
let prepare: (bus: FakeXenbus, place: number) => void;

beforeEach(() => {
  daemon = new FakeXenstored({ largestPiece: 4096 });
  daemon.set("/argv", "");
  daemon.permit("/argv", [
    { domid: 0, access: "none" },
    { domid: self, access: "read" },
  ]);
  for (const [i, path] of paths.entries()) daemon.set(path, `value ${i}`);
  clock = new FakeClock();
  opened = [];
  prepare = () => {};
  descriptors = new FakeXenbusDescriptors(10, () => {
    const bus = daemon.connect(self);
    prepare(bus, opened.length);
    opened.push(bus);
    return bus;
  });
});

async function read(which: readonly string[]): Promise<readonly Uint8Array[]> {
  const store = new SideBySide(fakePlatform({ clock, descriptors: bound() }));
  try {
    return await store.readAll(which);
  } finally {
    store.close();
  }
}

/** As a platform has them: functions that need no `this`. */
function bound(): Pick<
  FakeXenbusDescriptors,
  "open" | "close" | "read" | "write" | "onReadable" | "onWritable"
> {
  return {
    open: (path) => descriptors.open(path),
    close: (fd) => descriptors.close(fd),
    read: (fd, into) => descriptors.read(fd, into),
    write: (fd, from) => descriptors.write(fd, from),
    onReadable: (fd, ready) => descriptors.onReadable(fd, ready),
    onWritable: (fd) => descriptors.onWritable(fd),
  };
}

function expectNothingLeft(connections: number): void {
  expect(opened.map(({ closed }) => closed)).toEqual(Array.from({ length: connections }, () => true));
  expect([descriptors.count, clock.pending]).toEqual([0, 0]);
}

it("keeps the order, whichever connection is the fastest", async () => {
  prepare = (bus, place) => {
    if (place === 0) bus.hold();
  };
  const reading = read(paths);
  for (let turn = 0; turn < 50; turn++) await settle();
  // The first has four, with one under way; all that the others have has been asked.
  expect(daemon.requests).toHaveLength(1 + 26);
  opened[0]?.release();
  expect((await reading).map(decodeText)).toEqual(paths.map((_, i) => `value ${i}`));
  expectNothingLeft(8);
});

it("has eight reads under way and no more", async () => {
  prepare = (bus) => bus.hold();
  const reading = read(paths);
  for (let turn = 0; turn < 10; turn++) await settle();
  expect(daemon.requests).toEqual(paths.slice(0, 8).map((path) => `read ${path}`));
  for (const bus of opened) bus.release();
  await reading;
  expectNothingLeft(8);
});

it("opens no more connections than there are nodes", async () => {
  expect((await read(paths.slice(0, 2))).map(decodeText)).toEqual(["value 0", "value 1"]);
  expectNothingLeft(2);
});

it("fails with the read that failed", async () => {
  daemon.remove("/argv/17");
  const error = await read(paths).catch((thrown: unknown) => thrown);
  expect(error).toBeInstanceOf(XenstoreError);
  expect(error).toMatchObject({ code: "ENOENT", message: expect.stringContaining("/argv/17") });
  expectNothingLeft(8);
});

it("fails when one of the connections is lost", async () => {
  prepare = (bus, place) => {
    if (place !== 2) return;
    bus.cutAfter(5);
    bus.inject(new Uint8Array(16));
  };
  await expect(read(paths)).rejects.toThrow(ConnectionLost);
  expectNothingLeft(8);
});

it("fails when one of the connections has no answer", async () => {
  prepare = (bus, place) => {
    if (place === 3) bus.hold();
  };
  const reading = expect(read(paths)).rejects.toThrow(RequestTimedOut);
  for (let turn = 0; turn < 50; turn++) await settle();
  await clock.advance(4000);
  await reading;
  expectNothingLeft(8);
});

it("closes what it opened when there are no more descriptors", async () => {
  prepare = (_, place) => {
    if (place === 2) throw new SystemError("EMFILE", "open", "/dev/xen/xenbus");
  };
  await expect(read(paths)).rejects.toThrow("EMFILE");
  expectNothingLeft(2);
});
