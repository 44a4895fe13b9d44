import { describe, expect, it, test } from "vitest";
import { decodeEvents, eventSize, type InputAction, InputReader } from "../../../agent/screen/evdev.ts";

function act(...events: readonly (readonly [type: number, code: number, value: number])[]): InputAction[] {
  const reader = new InputReader();
  return events.flatMap(([type, code, value]) => reader.feed({ type, code, value }));
}

const report = [0, 0, 0] as const;

describe("struct input_event", () => {
  it("is read field by field", () => {
    const bytes = new Uint8Array(2 * eventSize);
    bytes.set([0x01, 0, 0x1e, 0, 1, 0, 0, 0], 16);
    bytes.set([0x03, 0, 0x01, 0, 0xfe, 0xff, 0xff, 0xff], eventSize + 16);
    expect(decodeEvents(bytes)).toEqual([
      { type: 1, code: 30, value: 1 },
      { type: 3, code: 1, value: -2 },
    ]);
  });

  it("leaves what is no whole event", () => {
    expect(decodeEvents(new Uint8Array(eventSize - 1))).toEqual([]);
  });
});

describe("actions", () => {
  it("a key at once, its repetition by the kernel not at all", () => {
    expect(act([1, 30, 1], [1, 30, 2], report, [1, 30, 0], report)).toEqual([
      { kind: "key", code: 30, pressed: true },
      { kind: "key", code: 30, pressed: false },
    ]);
  });

  it("a motion and buttons with the report that ends them", () => {
    expect(
      act([3, 0, 100], [3, 1, 50], report, [1, 0x110, 1], report, [1, 0x112, 1], [3, 0, 101], report),
    ).toEqual([
      { kind: "pointer", x: 100, y: 50, buttons: 0 },
      { kind: "pointer", x: 100, y: 50, buttons: 1 },
      { kind: "pointer", x: 101, y: 50, buttons: 3 },
    ]);
  });

  it("notches of the wheel, each pressed and let go", () => {
    expect(
      act([2, 8, -2], report).map((action) => (action.kind === "pointer" ? action.buttons : "?")),
    ).toEqual([16, 0, 16, 0]);
    expect(
      act([2, 8, 1], report).map((action) => (action.kind === "pointer" ? action.buttons : "?")),
    ).toEqual([8, 0]);
  });

  it("relative motion adds up", () => {
    expect(act([2, 0, 5], [2, 1, 7], report, [2, 0, -9], report)).toEqual([
      { kind: "pointer", x: 5, y: 7, buttons: 0 },
      { kind: "pointer", x: 0, y: 7, buttons: 0 },
    ]);
  });

  it("nothing of what follows a loss until the report is over", () => {
    expect(act([1, 0x110, 1], [0, 3, 0], [1, 30, 1], [3, 0, 9], report, [1, 31, 1])).toEqual([
      { kind: "lost" },
      { kind: "pointer", x: 0, y: 0, buttons: 0 },
      { kind: "key", code: 31, pressed: true },
    ]);
  });

  it("a wheel that turns a million times is taken for sixteen", () => {
    expect(act([2, 8, 1_000_000], report)).toHaveLength(32);
  });

  test.each([
    [4, 4, 30],
    [2, 6, 1],
    [3, 0x18, 5],
    [1, 0x14a, 1],
    [17, 0, 1],
  ])("an event of type %i, code %i is none", (type, code, value) => {
    expect(act([type, code, value], report)).toEqual([]);
  });
});
