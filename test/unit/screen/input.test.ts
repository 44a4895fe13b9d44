import { beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../../agent/log/logger.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { eventSize } from "../../../agent/screen/evdev.ts";
import { Input } from "../../../agent/screen/input.ts";
import { FakeClock } from "../../fakes/clock.ts";
import { fakePlatform } from "../../fakes/platform.ts";

let clock: FakeClock;
let did: string[];
let input: Input;
let queue: number[][];
let ready: (() => void) | null;
let closed: number;
let gone: boolean;

/** Events that wait; nobody has been told. */
function waiting(...list: readonly (readonly [number, number, number])[]): void {
  const bytes = Buffer.alloc(eventSize * list.length);
  for (const [i, [type, code, value]] of list.entries()) {
    bytes.writeUInt16LE(type, i * eventSize + 16);
    bytes.writeUInt16LE(code, i * eventSize + 18);
    bytes.writeInt32LE(value, i * eventSize + 20);
  }
  queue.push([...bytes]);
}

function events(...list: readonly (readonly [number, number, number])[]): void {
  waiting(...list);
  ready?.();
}

beforeEach(() => {
  clock = new FakeClock();
  did = [];
  queue = [];
  ready = null;
  closed = 0;
  gone = false;
  const { descriptors } = fakePlatform({
    descriptors: {
      open(path) {
        if (path.endsWith("9")) throw new SystemError("ENOENT", "open", path);
        return 4;
      },
      onReadable: (_fd, handler) => {
        ready = handler;
      },
      read(_fd, into) {
        const bytes = queue.shift();
        if (gone) throw new SystemError("ENODEV", "read", "4");
        if (bytes === undefined) return null;
        into.set(bytes);
        return bytes.length;
      },
      close: () => {
        closed++;
      },
    },
  });
  input = new Input({ clock, descriptors }, silentLogger, ["/dev/input/event0", "/dev/input/event9"], {
    key: (key, pressed) => did.push(`${key}${pressed ? "+" : "-"}`),
    pointer: (x, y, buttons) => did.push(`${x},${y},${buttons}`),
    active: () => did.push("!"),
  });
});

describe("keyboard and pointer", () => {
  it("act on QEMU, and count as somebody being there", () => {
    events([1, 96, 1], [0, 0, 0], [3, 0, 7], [3, 1, 8], [0, 0, 0]);
    expect(did).toEqual(["156+", "!", "7,8,0", "!"]);
  });

  it("a key that QEMU does not know does nothing, but shows that somebody is there", () => {
    events([1, 84, 1], [0, 0, 0]);
    expect(did).toEqual(["!"]);
  });

  it("the last key held repeats until it is let go", async () => {
    events([1, 30, 1], [1, 31, 1]);
    did = [];
    await clock.advance(499);
    expect(did).toEqual([]);
    await clock.advance(1 + 2 * 40);
    expect(did).toEqual(["31+", "31+", "31+"]);
    events([1, 30, 0]);
    await clock.advance(40);
    expect(did.slice(3)).toEqual(["30-", "!", "31+"]);
    events([1, 31, 0]);
    expect(clock.pending).toBe(0);
  });

  it("a keyboard that is taken away lets go of its keys", () => {
    events([1, 30, 1]);
    did = [];
    gone = true;
    ready?.();
    expect(did).toEqual(["30-"]);
    expect(clock.pending).toBe(0);
    expect(closed).toBe(1);
  });

  it("a keyboard that is gone when its key is to repeat lets go of it", async () => {
    events([1, 30, 1]);
    did = [];
    gone = true;
    await clock.advance(500);
    expect(did).toEqual(["30-"]);
    expect(clock.pending).toBe(0);
  });

  it("a release that waits comes before the repetition that is due, and ends it", async () => {
    events([1, 30, 1]);
    did = [];
    waiting([1, 30, 0]);
    await clock.advance(500);
    expect(did).toEqual(["30-", "!"]);
    expect(clock.pending).toBe(0);
  });

  it("lost events let go of every key", () => {
    events([1, 30, 1], [1, 31, 1], [0, 3, 0], [1, 32, 1], [0, 0, 0]);
    expect(did).toEqual(["30+", "!", "31+", "!", "30-", "31-", "!", "0,0,0", "!"]);
  });

  it("close lets go of every key, and may be called twice", () => {
    events([1, 30, 1]);
    input.close();
    input.close();
    expect(did.slice(2)).toEqual(["30-"]);
    expect(closed).toBe(1);
    expect(clock.pending).toBe(0);
  });
});
