import { beforeEach, describe, expect, it, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { Canvas } from "../../../agent/screen/canvas.ts";
import { RfbClient } from "../../../agent/screen/client.ts";
import { zeroCounters } from "../../../agent/screen/counters.ts";
import { RfbClosed, RfbError } from "../../../agent/screen/errors.ts";
import { clientSetup, keyEvent, pointerEvent, updateRequest } from "../../../agent/screen/rfb.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeScreen } from "../../fakes/pixels.ts";
import { fakePlatform } from "../../fakes/platform.ts";

const largest = { width: 1024, height: 768 };
const text = { width: 720, height: 400 };

function u16(...values: number[]): number[] {
  return values.flatMap((value) => [value >> 8, value & 0xff]);
}

function u32(value: number): number[] {
  return [value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff];
}

function rectangle(x: number, y: number, width: number, height: number, encoding: number): number[] {
  return [...u16(x, y, width, height), ...u32(encoding >>> 0)];
}

function update(...rectangles: readonly number[][]): number[] {
  return [0, 0, ...u16(rectangles.length), ...rectangles.flat()];
}

function raw(x: number, y: number, width: number, height: number): number[] {
  return [...rectangle(x, y, width, height, 0), ...new Array(4 * width * height).fill(1)];
}

const version = [...encodeText("RFB 003.008\n")];
const serverInit = [...u16(720, 400), ...new Array(16).fill(0), ...u32(4), ...encodeText("QEMU")];
const handshake = [...version, 1, 1, ...u32(0), ...serverInit];

let screen: FakeScreen;
let clock: FakeClock;
let sent: Uint8Array[];
let stuck: boolean;
let pause: number;
let client: RfbClient;
let ended: Promise<unknown>;
let counters: ReturnType<typeof zeroCounters>;

beforeEach(() => {
  screen = new FakeScreen(largest);
  clock = new FakeClock();
  sent = [];
  stuck = false;
  pause = 0;
  counters = zeroCounters();
  const { descriptors } = fakePlatform({
    descriptors: {
      onReadable: (_fd, ready) => screen.onReadable(ready),
      onWritable: () => {},
      write(_fd, bytes) {
        if (stuck) return null;
        sent.push(bytes.slice());
        return bytes.length;
      },
      close: () => {},
    },
  });
  const canvas = new Canvas(screen.framebuffers, 5);
  client = new RfbClient(9, canvas, {
    clock,
    descriptors,
    framebuffers: screen.framebuffers,
    counters,
    pause: () => pause,
  });
  ended = client.run().catch((error: unknown) => error);
});

/** Until the client has taken what there was. */
async function quiet(): Promise<void> {
  for (let i = 0; i < 400; i++) await settle();
}

/** What the client said since the last time. */
function said(): string {
  return Buffer.concat(sent.splice(0)).toString("hex");
}

const hex = (...messages: readonly Uint8Array[]) => Buffer.concat(messages).toString("hex");

async function shakeHands(): Promise<void> {
  screen.send(handshake);
  await quiet();
  sent = [];
}

describe("the handshake", () => {
  it("ends in a request for everything", async () => {
    screen.send(handshake);
    await quiet();
    const opening = [encodeText("RFB 003.008\n"), Uint8Array.of(1), Uint8Array.of(1)];
    expect(said()).toBe(hex(...opening, clientSetup(), updateRequest(text, false)));
    expect(screen.modes).toEqual([text]);
    expect(screen.cleared).toBe(0);
  });

  it("takes no input before it is over", async () => {
    screen.send(version);
    await quiet();
    said();
    client.key(1, true);
    client.pointer(1, 1, 0);
    client.attend();
    await quiet();
    expect(said()).toBe("");
  });

  test.each([
    ["a password", [...version, 1, 2], /password/],
    ["a refusal", [...version, 0, ...u32(3), ...encodeText("bad")], /"bad"/],
    ["a late refusal", [...version, 1, 1, ...u32(1), ...u32(3), ...encodeText("bad")], /"bad"/],
    ["a reason without end", [...version, 0, ...u32(0xffff_ffff)], /reason of 4294967295/],
    [
      "a name without end",
      [...version, 1, 1, ...u32(0), ...serverInit.slice(0, 20), ...u32(0x7fff_ffff)],
      /text/,
    ],
    ["no screen", [...version, 1, 1, ...u32(0), ...u16(0, 0), ...new Array(20).fill(0)], /0x0/],
    ["another protocol", [...encodeText("SSH-2.0-OpenSSH")], /version/],
  ])("%s ends it", async (_name, bytes, message) => {
    screen.send(bytes);
    await quiet();
    const error = await ended;
    expect(error).toBeInstanceOf(RfbError);
    expect(String(error)).toMatch(message);
  });

  it("a connection that ends is told as such", async () => {
    screen.send(version);
    screen.end();
    expect(await ended).toBeInstanceOf(RfbClosed);
  });
});

describe("updates", () => {
  beforeEach(shakeHands);

  it("are drawn, and the next is asked for", async () => {
    screen.send(update(raw(16, 32, 48, 2), raw(0, 0, 16, 1)));
    await quiet();
    expect(screen.drawn.map((drawing) => drawing.rectangle)).toEqual([
      { x: 16, y: 32, width: 48, height: 2 },
      { x: 0, y: 0, width: 16, height: 1 },
    ]);
    expect(screen.drawn[0]?.view).toMatchObject({
      source: text,
      target: { x: 0, y: 0, ...text },
      stride: 4096,
    });
    expect(said()).toBe(hex(updateRequest(text, true)));
    expect(counters).toMatchObject({ updates: 1, rectangles: 2, pixels: 112 });
  });

  it("come no faster than is wanted", async () => {
    pause = 100;
    screen.send(update(raw(0, 0, 16, 1)));
    await quiet();
    expect(said()).toBe("");
    await clock.advance(100);
    await quiet();
    expect(said()).toBe(hex(updateRequest(text, true)));
  });

  it("without pixels ask for nothing", async () => {
    screen.send(update(rectangle(0, 0, 720, 400, -258)));
    screen.send(update());
    await quiet();
    expect(said()).toBe("");
    expect(counters.updates).toBe(0);
  });

  it("nothing runs while nothing comes", async () => {
    await quiet();
    expect(clock.pending).toBe(0);
    expect(said()).toBe("");
  });

  it("a new mode of the guest is the framebuffer's, and asked for whole", async () => {
    screen.send(update(rectangle(0, 0, 800, 600, -223)));
    await quiet();
    expect(screen.modes.at(-1)).toEqual({ width: 800, height: 600 });
    expect(said()).toContain(hex(updateRequest({ width: 800, height: 600 }, false)));
    expect(screen.cleared).toBe(0);
  });

  it("a mode that dom0 does not allow leaves black bars", async () => {
    screen.refused = true;
    screen.send(update(rectangle(0, 0, 800, 600, -223)));
    screen.send(update(raw(0, 0, 16, 1)));
    await quiet();
    expect(screen.cleared).toBe(1);
    // The mode of the handshake is what the framebuffer kept.
    expect(screen.drawn[0]?.view.target).toEqual({ x: 93, y: 0, width: 533, height: 400 });
  });

  it("bells and texts are passed over", async () => {
    screen.send([2, 3, 0, 0, 0, ...u32(5), ...encodeText("hello"), 2, 3, 0, 0, 0, ...u32(0)]);
    screen.send(update(raw(0, 0, 16, 1)));
    await quiet();
    expect(counters.updates).toBe(1);
  });

  test.each([
    ["colours of a palette", [1, 0, 0, 0, 0, 0]],
    ["an unknown message", [200]],
    ["an encoding that was not asked for", update(rectangle(0, 0, 16, 16, 5))],
    ["a text without end", [3, 0, 0, 0, ...u32(0xffff_ffff)]],
    ["a screen without pixels", update(rectangle(0, 0, 0, 400, -223))],
    ["a screen of 65535 x 65535", update(rectangle(0, 0, 65535, 65535, -223))],
  ])("%s ends it", async (_name, bytes) => {
    screen.send(bytes);
    await quiet();
    expect(await ended).toBeInstanceOf(RfbError);
  });

  it("a rectangle wider than any screen ends it", async () => {
    screen.send(update(rectangle(0, 0, 65535, 1, 0)));
    await quiet();
    expect(String(await ended)).toMatch(/EINVAL/);
  });

  it("a server that never stops talking lets others run", async () => {
    screen.send(new Array(200_000).fill(2));
    let turns = 0;
    while (turns < 50 && clock.pending === 0) {
      await settle();
      turns++;
    }
    expect(clock.pending).toBe(1);
  });
});

describe("input", () => {
  beforeEach(shakeHands);

  it("is sent as it comes", async () => {
    client.key(0x1e, true);
    client.pointer(5, 6, 1);
    await quiet();
    expect(said()).toBe(hex(keyEvent(0x1e, true), pointerEvent(5, 6, 1)));
  });

  it("is bounded while QEMU takes nothing", async () => {
    stuck = true;
    for (let i = 0; i < 100_000; i++) {
      client.pointer(i % 700, 0, 0);
      client.key(1, true);
      client.attend();
    }
    stuck = false;
    expect(counters.pointerMoves).toBeLessThan(2000);
    expect(counters.keys).toBeLessThan(6000);
  });

  it("QEMU that asks to be asked, and reads nothing, has lost its screen", async () => {
    stuck = true;
    for (let i = 0; i < 5000; i++) screen.send(update(rectangle(0, 0, 640 + (i % 2), 400, -223)));
    let over = false;
    void ended.then(() => {
      over = true;
    });
    // Others have their turn all the while.
    for (let turn = 0; turn < 2000 && !over; turn++) await clock.advance(1);
    expect(String(await ended)).toMatch(/RfbError: RFB: the server has left 20\d\d\d bytes unread/);
    expect(counters.resizes).toBeLessThan(2000);
  });

  it("ends quietly after close, which may be called twice", async () => {
    client.close();
    client.close();
    client.key(1, true);
    expect(await ended).toBeInstanceOf(RfbClosed);
    await quiet();
    expect(said()).toBe("");
  });
});
