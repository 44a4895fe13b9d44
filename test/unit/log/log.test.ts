import { describe, expect, test } from "vitest";
import { decodeText } from "../../../agent/bytes/text.ts";
import { ConsoleSink } from "../../../agent/log/console-sink.ts";
import { formatHuman, formatJson, printable } from "../../../agent/log/format.ts";
import { createLog } from "../../../agent/log/log.ts";
import { type Descriptors, SystemError } from "../../../agent/platform/port.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { fakePlatform } from "../../fakes/platform.ts";

/** A terminal that takes `room` bytes and then no more until it is given room again. */
function terminal(room = Number.POSITIVE_INFINITY) {
  let text = "";
  let left = room;
  let ready: (() => void) | null = null;
  let gone = false;
  const { descriptors } = fakePlatform({
    descriptors: {
      write(_, from) {
        if (gone) throw new SystemError("EIO", "write", "5");
        if (left === 0) return null;
        const part = from.subarray(0, left);
        left -= part.length;
        text += decodeText(part);
        return part.length;
      },
      onWritable(_, handler) {
        ready = handler;
      },
    } satisfies Partial<Descriptors>,
  });
  return {
    sink: new ConsoleSink(descriptors, 5),
    lines: () => text.split("\r\n").slice(0, -1),
    waits: () => ready !== null,
    drain(bytes: number) {
      left = bytes;
      ready?.();
    },
    hangUp() {
      gone = true;
      ready?.();
    },
  };
}

describe("the console", () => {
  test("gets lines at once, and is not watched then", async () => {
    const { sink, lines, waits } = terminal();
    sink.write("a");
    sink.write("b");
    await sink.flush();
    expect([lines(), waits()]).toEqual([["a", "b"], false]);
  });

  test("that takes nothing keeps a bounded queue, whose surplus is counted once it drains", async () => {
    const { sink, lines, waits, drain } = terminal(0);
    const line = "x".repeat(1022);
    for (let n = 0; n < 100; n++) sink.write(line);
    expect([lines(), waits()]).toEqual([[], true]);
    let flushed = false;
    void sink.flush().then(() => {
      flushed = true;
    });
    drain(1000);
    await settle();
    expect(flushed).toBe(false);
    drain(Number.POSITIVE_INFINITY);
    await settle();
    expect(lines()).toEqual([
      ...Array<string>(64).fill(line),
      "log: 36 lines dropped, the console did not take them",
    ]);
    expect([flushed, waits()]).toEqual([true, false]);
  });

  test("cuts no line, however little it takes at a time", () => {
    const { sink, lines, drain } = terminal(0);
    sink.write("first");
    sink.write("second");
    for (let n = 0; n < 20; n++) drain(1);
    expect(lines()).toEqual(["first", "second"]);
  });

  test("that is gone ends the waiting", async () => {
    const { sink, waits, hangUp } = terminal(0);
    sink.write("lost");
    hangUp();
    await sink.flush();
    sink.write("lost too");
    await sink.flush();
    expect(waits()).toBe(false);
  });
});

describe("a line", () => {
  test("has no control characters, so that nobody forges one or drives a terminal", () => {
    expect(printable("a\nb\r\x1b[31m\x00\x7f\x9b\u2028\u2029 é")).toBe(
      "a\\x0ab\\x0d\\x1b[31m\\x00\\x7f\\x9b\\u2028\\u2029 é",
    );
    const line = formatHuman({ time: 1234, level: "warn", msg: "x\n[ 9.9] error forged", field: "\n" });
    expect(line).toBe("[    1.234] warn  x\\x0a[ 9.9] error forged (field=\\x0a)");
  });

  test("is cut, and says how long it was", () => {
    const line = formatHuman({ time: 0, level: "info", msg: "x".repeat(100_000) });
    expect(line.length).toBeLessThan(2050);
    expect(line).toMatch(/x\.\.\. \(100018 characters\)$/);
    const json = formatJson({ time: 0, level: "info", msg: "\n".repeat(100_000), other: "dropped" });
    expect(json.length).toBeLessThan(5000);
    expect(JSON.parse(json)).toMatchObject({ level: "info", cut: true });
  });

  test("JSON has no control characters either, and says the same", () => {
    const msg = "a\u0085b\u009b31mc\u2028d\u007fe\n";
    const json = formatJson({ time: 0, level: "info", msg });
    expect(json).toMatch(/^[ -~]*$/);
    expect(JSON.parse(json)).toMatchObject({ msg });
  });
});

describe("the log", () => {
  test("keeps the newest 200 lines", () => {
    const log = createLog(new FakeClock(), { write() {} });
    for (let n = 0; n < 1000; n++) log.info({}, `line ${n}`);
    expect(log.recent).toHaveLength(200);
    expect([log.recent[0], log.recent.at(-1)]).toEqual([
      expect.stringMatching(/line 800$/),
      expect.stringMatching(/line 999$/),
    ]);
  });

  test("changes level and format while it runs", async () => {
    const lines: string[] = [];
    const log = createLog(new FakeClock(), { write: (line) => void lines.push(line) });
    log.debug({}, "not yet");
    log.configure({ level: "debug", format: "json" });
    log.debug({ a: 1 }, "now");
    await log.flush();
    expect(lines.map((line) => JSON.parse(line))).toEqual([{ time: 0, level: "debug", msg: "now", a: 1 }]);
  });
});
