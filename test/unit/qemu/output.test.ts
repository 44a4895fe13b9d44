import { describe, expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { QemuOutput } from "../../../agent/qemu/output.ts";
import { FakeClock } from "../../fakes/clock.ts";

function setUp() {
  const clock = new FakeClock();
  const lines: string[] = [];
  const note = (_: object, message: string) => void lines.push(message);
  const output = new QemuOutput(clock, { debug: note, info: note, warn: note, error: note });
  return { clock, lines, output, print: (text: string) => output.push(encodeText(text)) };
}

describe("QEMU's lines", () => {
  const text = "one\n\ntwo \u00e4\nthree";

  test.each([1, 2, 5, 100])("come one by one, in pieces of %i bytes", (size) => {
    const { output, lines } = setUp();
    const bytes = encodeText(text);
    for (let start = 0; start < bytes.length; start += size) output.push(bytes.subarray(start, start + size));
    expect(lines).toEqual(["qemu: one", "qemu: two \u00e4"]);
    output.end();
    expect(lines).toEqual(["qemu: one", "qemu: two \u00e4", "qemu: three"]);
    expect(output.lastLines).toEqual(["one", "two \u00e4", "three"]);
  });

  test("cannot forge another line or move the cursor", () => {
    const { lines, output } = setUp();
    output.push(Uint8Array.of(...encodeText("\u001b[2Ja\rb\tc\u0000\u009b"), 0xff, 0x0a));
    expect(lines).toEqual(["qemu: \\x1b[2Ja\\x0db c\\x00\\x9b\ufffd"]);
  });

  test("are cut when they are long, whatever their length", () => {
    const { lines, print } = setUp();
    print("y".repeat(512));
    print("\n");
    for (let count = 0; count < 1000; count++) print("x".repeat(10_000));
    print("\nnext\n");
    expect(lines).toEqual([
      `qemu: ${"y".repeat(512)}`,
      `qemu: ${"x".repeat(512)}... (10000000 bytes)`,
      "qemu: next",
    ]);
  });
});

describe("a flood", () => {
  test("is dropped and counted, and ends in one line", async () => {
    const { clock, lines, print } = setUp();
    print("spam\n".repeat(10_000));
    expect(lines).toHaveLength(100);
    await clock.advance(1000);
    expect(lines.at(-1)).toBe("qemu: 9900 more lines (39600 bytes) not logged");
    print("spam\n".repeat(50));
    await clock.advance(1000);
    expect(lines).toHaveLength(100 + 1 + 10);
    // The second summary waits twice as long as the first.
    await clock.advance(1000);
    expect(lines).toHaveLength(100 + 1 + 10 + 1);
    expect(lines.at(-1)).toBe("qemu: 40 more lines (160 bytes) not logged");
    expect(clock.pending).toBe(0);
  });

  test("that never ends takes megabytes of dom0's log, not gigabytes", async () => {
    const { clock, lines, print } = setUp();
    const hours = 2;
    for (let second = 0; second < hours * 3600; second += 10) {
      print(`${"\x01".repeat(500)}\n`.repeat(100));
      await clock.advance(10_000);
    }
    const bytes = lines.reduce((sum, line) => sum + line.length, 0);
    // What may come at once, and a hundred bytes a second; then a line a minute.
    const told = lines.filter((line) => line.includes("not logged")).length;
    expect(bytes).toBeLessThan(2 ** 20 + hours * 3600 * 100 + told * 80);
    expect(told).toBeLessThan(hours * 60 + 10);
  });

  test("leaves the last lines for the report of QEMU's end", () => {
    const { print, output, lines, clock } = setUp();
    print("spam\n".repeat(1000));
    print("1\n2\n3\n4\nfatal");
    output.end();
    expect(output.lastLines).toEqual(["1", "2", "3", "4", "fatal"]);
    expect(lines.at(-1)).toBe("qemu: 905 more lines (3609 bytes) not logged");
    expect(clock.pending).toBe(0);
  });

  test("that has passed leaves room again", async () => {
    const { clock, lines, print } = setUp();
    print("a\n".repeat(100));
    await clock.advance(60_000);
    print("b\n".repeat(100));
    expect(lines).toHaveLength(200);
  });
});
