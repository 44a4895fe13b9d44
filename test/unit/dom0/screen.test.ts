import { afterEach, beforeEach, expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { ScreenWatch, typeChord } from "../../../agent/dom0/screen.ts";
import type { Logger } from "../../../agent/log/logger.ts";
import type { Platform } from "../../../agent/platform/port.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { fakePlatform } from "../../fakes/platform.ts";
import { type MemoryEnd, memoryStream } from "../../fakes/stream.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

async function taken(end: MemoryEnd, size: number): Promise<number[]> {
  const bytes: number[] = [];
  while (bytes.length < size) {
    const chunk = await end.read();
    if (chunk === null) break;
    bytes.push(...chunk);
  }
  return bytes;
}

/** What a server of RFB says up to its picture. */
async function serve(end: MemoryEnd): Promise<number[]> {
  await end.write(encodeText("RFB 003.008\n"));
  expect(Buffer.from(await taken(end, 12)).toString()).toBe("RFB 003.008\n");
  await end.write(Uint8Array.of(1, 1));
  expect(await taken(end, 1)).toEqual([1]);
  await end.write(Uint8Array.of(0, 0, 0, 0));
  // Shared: nobody who watches is sent away.
  expect(await taken(end, 1)).toEqual([1]);
  const init = new Uint8Array(24 + 4);
  init.set([2, 128, 1, 224, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0]);
  init.set([0, 0, 0, 4, ...encodeText("QEMU")], 20);
  await end.write(init);
  return taken(end, 6 * 12 + 10);
}

/** With its keysym: the only thing that a server with a layout looks at. */
const key = (code: number, keysym: readonly number[], down: number) => [
  ...[255, 0, 0, down],
  ...[0, 0, ...keysym],
  ...[0, 0, 0, code],
];
const control = (down: number) => key(0x1d, [0xff, 0xe3], down);
const alt = (down: number) => key(0x38, [0xff, 0xe9], down);
const one = (down: number) => key(0x02, [0, 0x31], down);

test("Ctrl-Alt-1 is typed, and has been read when the conversation ends", async () => {
  const [ours, theirs] = memoryStream();
  let done = false;
  const typed = typeChord(ours).then(() => {
    done = true;
  });
  expect(await serve(theirs)).toEqual([
    ...[control(1), alt(1), one(1)].flat(),
    ...[one(0), alt(0), control(0)].flat(),
    ...[3, 0, 0, 0, 0, 0, 0, 1, 0, 1],
  ]);
  expect(done).toBe(false);
  await theirs.write(Uint8Array.of(0));
  await typed;
});

test("a server that goes in the middle is an error", async () => {
  const [ours, theirs] = memoryStream();
  const typed = typeChord(ours);
  await serve(theirs);
  theirs.close();
  await expect(typed).rejects.toThrow("ended the conversation");
});

let daemon: FakeXenstored;
let xenstore: XenstoreClient;
let lines: string[];
let selected: number;
let clock: FakeClock;
let failure: Error | undefined;
const state = "/local/domain/0/backend/vfb/5/0/state";

beforeEach(() => {
  daemon = new FakeXenstored();
  clock = new FakeClock();
  xenstore = new XenstoreClient(daemon.connect(0), clock);
  lines = [];
  selected = 0;
  failure = undefined;
});

afterEach(() => xenstore.close());

function watch(): ScreenWatch {
  const say = (_: object, text: string) => void lines.push(text);
  const log = { info: say, warn: say } as unknown as Logger;
  const platform: Platform = fakePlatform({ clock });
  return new ScreenWatch(
    { platform, xenstore, log },
    5,
    { talk: () => Promise.reject(new Error()) },
    async () => {
      selected++;
      if (failure !== undefined) throw failure;
    },
  );
}

async function quiet(): Promise<void> {
  for (let turn = 0; turn < 40; turn++) await settle();
}

test("the screen is chosen once, when dom0's QEMU has it", async () => {
  const screen = watch();
  await screen.start();
  await quiet();
  for (const next of ["1", "2", "3"]) {
    daemon.set(state, next);
    await quiet();
  }
  expect(selected).toBe(0);
  daemon.set(state, "4");
  await quiet();
  daemon.set(state, "4");
  await quiet();
  expect(selected).toBe(1);
  expect(lines).toEqual(["domain 5: dom0's VNC server shows its guest's screen"]);
  screen.stop();
});

test("what fails is said with what to do and tried again, until it works, and not after the end", async () => {
  failure = new Error("no such socket");
  const screen = watch();
  daemon.set(state, "4");
  await screen.start();
  await quiet();
  expect(lines).toEqual([
    "domain 5: dom0's VNC server may show no screen until a viewer types Ctrl-Alt-1: Error: no such socket; the next try is in 2 s",
  ]);
  await clock.advance(2000);
  await quiet();
  expect(selected).toBe(2);
  expect(lines[1]).toMatch(/; the next try is in 4 s$/);
  failure = undefined;
  await clock.advance(4000);
  await quiet();
  expect(lines[2]).toMatch(/shows its guest's screen$/);
  await clock.advance(600_000);
  expect([selected, clock.pending]).toEqual([3, 0]);
  screen.stop();
});

test("nothing is tried after the end", async () => {
  failure = new Error("no such socket");
  const screen = watch();
  daemon.set(state, "4");
  await screen.start();
  await quiet();
  screen.stop();
  screen.stop();
  daemon.set(state, "4");
  await quiet();
  await clock.advance(600_000);
  expect([selected, clock.pending]).toEqual([1, 0]);
});
