import { describe, expect, test } from "vitest";
import { concatBytes } from "../../../agent/bytes/bytes.ts";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { QmpCommandError, QmpFramingError } from "../../../agent/qmp/errors.ts";
import type { JsonValue } from "../../../agent/qmp/json.ts";
import { type CommandGate, type CommandHandler, proxySession } from "../../../agent/qmp/proxy.ts";
import { settle } from "../../fakes/clock.ts";
import { FakeQemuMonitor, type FakeQemuOptions, greeting } from "../../fakes/qemu.ts";
import { type MemoryEnd, memoryStream } from "../../fakes/stream.ts";

/** A toolstack's end that collects all it reads. */
class Toolstack {
  readonly #parts: Uint8Array[] = [];
  readonly done: Promise<void>;

  constructor(readonly stream: MemoryEnd) {
    this.done = this.#collect();
  }

  get text(): string {
    return decodeText(concatBytes(this.#parts));
  }

  get lines(): string[] {
    return this.text.split("\r\n").slice(0, -1);
  }

  send(text: string): Promise<void> {
    return this.stream.write(encodeText(text));
  }

  async until(text: string): Promise<void> {
    for (let round = 0; !this.text.includes(text); round++) {
      if (round === 2000) throw new Error(`no ${text} in: ${this.text}`);
      await settle();
    }
  }

  async #collect(): Promise<void> {
    for (let chunk = await this.stream.read(); chunk !== null; chunk = await this.stream.read()) {
      this.#parts.push(chunk);
    }
  }
}

function session(
  takeOver: Record<string, CommandHandler> = {},
  options: FakeQemuOptions & { gates?: Record<string, CommandGate> } = {},
) {
  const [toolstackEnd, toolstackSide] = memoryStream({ seed: 3 });
  const [qemuSide, qemuEnd] = memoryStream({ seed: 4 });
  return {
    toolstack: new Toolstack(toolstackEnd),
    qemu: new FakeQemuMonitor(qemuEnd, options),
    summary: proxySession(toolstackSide, qemuSide, {
      takeOver: new Map(Object.entries(takeOver)),
      gates: new Map(Object.entries(options.gates ?? {})),
    }),
    ends: [toolstackSide, qemuSide],
  };
}

/** Both ends bare, to see the bytes. */
function bareSession(takeOver: Record<string, CommandHandler> = {}, largestPiece = 7) {
  const [toolstackEnd, toolstackSide] = memoryStream({ seed: 5, largestPiece });
  const [qemuSide, qemuEnd] = memoryStream({ seed: 6, largestPiece });
  return {
    toolstack: new Toolstack(toolstackEnd),
    qemu: new Toolstack(qemuEnd),
    summary: proxySession(toolstackSide, qemuSide, { takeOver: new Map(Object.entries(takeOver)) }),
    ends: [toolstackSide, qemuSide],
  };
}

describe("passing through", () => {
  test("a session from greeting to end", async () => {
    const { toolstack, qemu, summary, ends } = session();
    await toolstack.send(
      '{"execute": "qmp_capabilities", "id": 1}\r\n{"execute": "query-status", "id": 2}\r\n',
    );
    await toolstack.until('"id":2');
    expect(toolstack.lines[0]).toBe(greeting.trim());
    toolstack.stream.close();
    expect(await summary).toEqual({ endedBy: "toolstack", commands: 2 });
    await qemu.done;
    expect(qemu.received).toEqual(["qmp_capabilities", "query-status"]);
    expect(ends.every(({ closed }) => closed)).toBe(true);
  });

  test("changes no byte in either direction", async () => {
    const { toolstack, qemu, summary } = bareSession({ other: async () => ({}) });
    const sent = ` \n{'execute':'x' , "id":1}{"execute" : "\u00e4", "arguments":{"execute":"other"}}\n\n{"id":{}}\r\n`;
    const replied =
      '{"QMP":{}}\r\n \r\n{"return":\t{}}{"event": "E"}\n{"error": {"desc": "\u20ac"}}\r\n{"half';
    await toolstack.send(sent);
    await qemu.send(replied);
    await qemu.until('{"id":{}}\r\n');
    await toolstack.until('{"half');
    expect(qemu.text).toBe(sent);
    expect(toolstack.text).toBe(replied);
    toolstack.stream.close();
    await summary;
  });

  test("goes no faster than the toolstack reads", async () => {
    const [toolstackEnd, toolstackSide] = memoryStream({ capacity: 1000 });
    const [qemuSide, qemuEnd] = memoryStream({ capacity: 1000, largestPiece: 500 });
    const summary = proxySession(toolstackSide, qemuSide);
    let taken = false;
    const flood = qemuEnd.write(encodeText(`{"QMP": "${"x".repeat(100_000)}"}\r\n`)).then(() => {
      taken = true;
    });
    for (let round = 0; round < 200; round++) await settle();
    expect(taken).toBe(false);
    const toolstack = new Toolstack(toolstackEnd);
    await flood;
    await toolstack.until("}\r\n");
    expect(toolstack.text.length).toBe(100_000 + 13);
    toolstackEnd.close();
    await summary;
  });
});

describe("an event", () => {
  const event = '{"event": "RTC_CHANGE"}\r\n';
  const reply = '{"return": {}}\r\n';

  test("that comes when nothing is asked waits for the next answer, in order", async () => {
    const { toolstack, qemu, summary } = bareSession();
    await qemu.send(greeting + event + event);
    await toolstack.until(greeting);
    for (let round = 0; round < 50; round++) await settle();
    expect(toolstack.text).toBe(greeting);
    await toolstack.send('{"execute":"a"}');
    await qemu.until("a");
    await qemu.send('{"event": "STOP"}\r\n');
    await toolstack.until("STOP");
    await qemu.send(reply + event);
    await toolstack.until(reply);
    for (let round = 0; round < 50; round++) await settle();
    expect(toolstack.text).toBe(`${greeting}${event}${event}{"event": "STOP"}\r\n${reply}`);
    toolstack.stream.close();
    await summary;
  });

  test("in the middle of which a command is sent waits for the answer as well", async () => {
    const { toolstack, qemu, summary } = bareSession();
    await qemu.send(`${greeting}{"event": "RTC_`);
    await toolstack.until(greeting);
    await toolstack.send('{"execute":"a"}');
    await qemu.until("a");
    await qemu.send('CHANGE"}\r\n');
    for (let round = 0; round < 50; round++) await settle();
    expect(toolstack.text).toBe(greeting);
    await qemu.send(reply);
    await toolstack.until(reply);
    expect(toolstack.text).toBe(greeting + event + reply);
    toolstack.stream.close();
    await summary;
  });

  test("goes out unasked when 16 KiB have gathered", async () => {
    const { toolstack, qemu, summary } = bareSession({}, 500);
    await qemu.send(greeting);
    const flood = event.repeat(Math.ceil((100 * 1024) / event.length));
    await qemu.send(flood);
    await toolstack.until(event);
    for (let round = 0; round < 2000; round++) await settle();
    const held = greeting.length + flood.length - toolstack.text.length;
    expect(held).toBeLessThanOrEqual(16 * 1024);
    await toolstack.send('{"execute":"a"}');
    await qemu.until("a");
    await qemu.send(reply);
    await toolstack.until(reply);
    expect(toolstack.text).toBe(greeting + flood + reply);
    toolstack.stream.close();
    await summary;
  });

  test("after the other, while an answer is owed, ends the session: libxl keeps them all until then", async () => {
    const { toolstack, qemu, summary } = bareSession({}, 16384);
    await qemu.send(greeting);
    await toolstack.send('{"execute": "qmp_capabilities"}');
    const flood = qemu.send(event.repeat((3 << 20) / event.length)).catch(() => "cut");
    const { endedBy, error } = await summary;
    expect([endedBy, error?.message]).toEqual([
      "fault",
      expect.stringMatching(/^QEMU sent 2\d{6} bytes and no answer/),
    ]);
    expect(await flood).toBe("cut");
    await toolstack.done;
    expect(toolstack.text.length).toBeLessThan(2.1 * 1024 * 1024);
  });

  test("the same, while the agent owes the answer", async () => {
    const hangs = () => new Promise<JsonValue>(() => {});
    const { toolstack, qemu, summary } = bareSession({ mine: hangs }, 16384);
    await qemu.send(greeting);
    await toolstack.until(greeting);
    await toolstack.send('{"execute": "mine"}');
    for (let round = 0; round < 20; round++) await settle();
    void qemu.send(event.repeat((3 << 20) / event.length)).catch(() => {});
    expect((await summary).endedBy).toBe("fault");
    expect(toolstack.text.length).toBeLessThan(2.1 * 1024 * 1024);
  });

  test("and another between many answers is no flood", async () => {
    const { toolstack, qemu, summary } = bareSession({}, 16384);
    await qemu.send(greeting);
    for (let n = 0; n < 5; n++) {
      await toolstack.send('{"execute": "query-status"}');
      await qemu.until('{"execute": "query-status"}'.repeat(n + 1));
      await qemu.send(`${event.repeat((1 << 20) / event.length)}{"return": {"n": ${n}}}\r\n`);
      await toolstack.until(`{"n": ${n}}`);
    }
    toolstack.stream.close();
    expect((await summary).endedBy).toBe("toolstack");
  });

  test("is not lost when QEMU ends", async () => {
    const { toolstack, qemu, summary } = bareSession();
    await qemu.send(greeting + event);
    await toolstack.until(greeting);
    qemu.stream.close();
    await summary;
    await toolstack.done;
    expect(toolstack.text).toBe(greeting + event);
  });
});

describe("the end of a session", () => {
  test.each([
    ["", 0],
    ['{"execute": "qmp_capab', 0],
    ['{"execute": "qmp_capabilities"}', 1],
  ])("by a toolstack that sent %j", async (sent, commands) => {
    const { toolstack, qemu, summary, ends } = session();
    await toolstack.send(sent);
    toolstack.stream.close();
    expect(await summary).toMatchObject({ commands });
    await qemu.done;
    expect(ends.every(({ closed }) => closed)).toBe(true);
  });

  test("by QEMU", async () => {
    const { toolstack, qemu, summary } = bareSession();
    await qemu.send(greeting);
    await toolstack.until(greeting);
    qemu.stream.close();
    expect(await summary).toEqual({ endedBy: "qemu", commands: 0 });
    await toolstack.done;
  });

  test.each(["toolstack", "qemu"] as const)("by 10 MB without an end from %s", async (side) => {
    const parts = bareSession({}, 16384);
    const flood = parts[side].send(`{"x": "${"x".repeat(10 * 1024 * 1024)}`).catch(() => "cut");
    const { endedBy, error } = await parts.summary;
    expect(endedBy).toBe("fault");
    expect(error).toBeInstanceOf(QmpFramingError);
    expect(await flood).toBe("cut");
    await Promise.all([parts.toolstack.done, parts.qemu.done]);
  });

  test("by bytes that are no QMP", async () => {
    const { toolstack, summary } = session();
    await toolstack.send("GET / HTTP/1.1\r\n");
    const { endedBy, error } = await summary;
    expect([endedBy, error?.message]).toEqual(["fault", 'a message begins with "G", not with "{"']);
  });
});

describe("taking over a command", () => {
  test("answers in QEMU's place, with the id as it was", async () => {
    const seen: JsonValue[] = [];
    const { toolstack, qemu, summary } = session({
      save: async (args) => {
        seen.push(args);
        return { done: true };
      },
    });
    await toolstack.send(
      '{"execute":"qmp_capabilities"}{"execute":"save","arguments":{"f":"x"},"id": {"a" : 1.0}}\n',
    );
    await toolstack.until("done");
    expect(toolstack.lines.at(-1)).toBe('{"return": {"done":true}, "id": {"a" : 1.0}}');
    await toolstack.send("{'execute':'save'}");
    await toolstack.until('{"return": {"done":true}}\r\n');
    expect(seen).toEqual([{ f: "x" }, {}]);
    expect(qemu.received).toEqual(["qmp_capabilities"]);
    toolstack.stream.close();
    expect(await summary).toEqual({ endedBy: "toolstack", commands: 3 });
  });

  test.each([
    [new QmpCommandError("save", "DeviceNotFound", "no disk"), '{"class":"DeviceNotFound","desc":"no disk"}'],
    [new Error("broken"), '{"class":"GenericError","desc":"broken"}'],
  ])("refuses with the error's class: %s", async (error, expected) => {
    const { toolstack, summary } = session({
      save: () => Promise.reject(error),
    });
    await toolstack.send('{"execute":"save","id":7}');
    await toolstack.until("desc");
    expect(toolstack.lines.at(-1)).toBe(`{"error": ${expected}, "id": 7}`);
    toolstack.stream.close();
    await summary;
  });

  test("says nothing of QEMU's with a control character in it", async () => {
    const { toolstack, summary } = session({
      mine: () =>
        Promise.reject(new QmpCommandError("mine", "GenericError", "\u001b]0;root\u0007 \u009b31m\u007f")),
    });
    await toolstack.send('{"execute": "qmp_capabilities"}{"execute": "mine", "id": 1}');
    await toolstack.until("GenericError");
    const { error } = JSON.parse(toolstack.lines.at(-1) ?? "") as { error: { desc: string } };
    // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly those must not come through
    expect(error.desc).not.toMatch(/[\x00-\x1f\x7f-\x9f]/);
    toolstack.stream.close();
    await summary;
  });

  test.each(["[]", "nonsense", "'x'"])("refuses arguments that are no object: %s", async (args) => {
    const { toolstack, summary } = session({ save: async () => ({}) });
    await toolstack.send(`{"execute":"save","arguments":${args}}`);
    await toolstack.until("GenericError");
    toolstack.stream.close();
    await summary;
  });

  test("keeps the order with the commands before and after it", async () => {
    const log: string[] = [];
    let finish: () => void = () => {};
    const { toolstack, qemu, summary } = session(
      {
        save: async () => {
          log.push("save begins");
          await new Promise<void>((resolve) => {
            finish = resolve;
          });
          log.push("save ends");
          return "saved";
        },
      },
      {
        execute: async (command) => {
          for (let round = 0; round < 5; round++) await settle();
          log.push(command);
          return command;
        },
      },
    );
    const commands = ["qmp_capabilities", "stop", "query-status", "save", "cont", "save"];
    await toolstack.send(commands.map((name, id) => JSON.stringify({ execute: name, id })).join(""));
    while (!log.includes("save begins")) await settle();
    expect(log).toEqual(["stop", "query-status", "save begins"]);
    await qemu.event("STOP");
    for (let round = 0; round < 20; round++) await settle();
    expect(toolstack.text).not.toContain("STOP");
    finish();
    await toolstack.until('"id": 3');
    expect(toolstack.text).toMatch(/STOP[^\n]*\n\{"return": "saved"/);
    while (log.filter((line) => line === "save begins").length < 2) await settle();
    finish();
    await toolstack.until('"id": 5');
    const order = ["stop", "query-status", "save begins", "save ends", "cont", "save begins", "save ends"];
    expect(log).toEqual(order);
    const ids = toolstack.lines.flatMap((line) => /"id": ?(\d)/.exec(line)?.[1] ?? []);
    expect(ids).toEqual(["0", "1", "2", "3", "4", "5"]);
    toolstack.stream.close();
    await summary;
  });

  /** A session whose `save` ends when it is told to. */
  async function saving() {
    let finish: (value: string) => void = () => {};
    const parts = bareSession({
      save: () =>
        new Promise((resolve) => {
          finish = resolve;
        }),
    });
    await parts.qemu.send(greeting);
    await parts.toolstack.until(greeting);
    return { ...parts, finish: () => finish("saved") };
  }

  test("waits for the end of a line that QEMU is in the middle of", async () => {
    const { toolstack, qemu, summary, finish } = await saving();
    await toolstack.send('{"execute":"first"}{"execute":"save"}{"execute":"next"}');
    await qemu.until("first");
    await qemu.send('{"return": 1}');
    await toolstack.until('{"return": 1}');
    for (let round = 0; round < 20; round++) await settle();
    finish();
    expect(qemu.text).toBe('{"execute":"first"}');
    await qemu.send('\r\n{"event": "MORE"}\r\n');
    for (let round = 0; round < 20; round++) await settle();
    finish();
    await qemu.until("next");
    expect(toolstack.lines.slice(1)).toEqual(['{"return": 1}', '{"event": "MORE"}', '{"return": "saved"}']);
    toolstack.stream.close();
    await summary;
  });

  test("does not wait for the end of an event", async () => {
    const { toolstack, qemu, summary, finish } = await saving();
    await qemu.send('{"event": "FIRST"}\r\n{"event": "SEC');
    await toolstack.send('{"execute":"save"}{"execute":"next"}');
    for (let round = 0; round < 20; round++) await settle();
    finish();
    await qemu.until("next");
    expect(toolstack.lines.slice(1)).toEqual(['{"return": "saved"}']);
    await qemu.send('OND"}\r\n{"return": 2}\r\n');
    await toolstack.until('{"return": 2}\r\n');
    expect(toolstack.lines.slice(2)).toEqual(['{"event": "FIRST"}', '{"event": "SECOND"}', '{"return": 2}']);
    toolstack.stream.close();
    await summary;
  });

  test("does not begin before QEMU's greeting, nor after the end", async () => {
    let begun = 0;
    const { toolstack, qemu, summary } = bareSession({
      save: async () => {
        begun++;
        return {};
      },
    });
    await toolstack.send('{"execute":"save"}');
    for (let round = 0; round < 20; round++) await settle();
    expect(begun).toBe(0);
    qemu.stream.close();
    await summary;
    expect(begun).toBe(0);
  });

  test("a session that ends during the command is still whole", async () => {
    let finish: () => void = () => {};
    const { toolstack, summary, ends } = session({
      save: () =>
        new Promise<JsonValue>((resolve) => {
          finish = () => resolve({});
        }),
    });
    await toolstack.send('{"execute":"save"}');
    await toolstack.until("QMP");
    for (let round = 0; round < 20; round++) await settle();
    toolstack.stream.close();
    finish();
    await summary;
    expect(ends.every(({ closed }) => closed)).toBe(true);
  });
});

describe("a gate", () => {
  const opening = () => {
    let open: () => void = () => {};
    const waited: JsonValue[] = [];
    const gate: CommandGate = (args) => {
      waited.push(args);
      return new Promise((resolve) => {
        open = resolve;
      });
    };
    return { gate, waited, open: () => open() };
  };

  test("holds its command and those after it, and lets it pass as it was", async () => {
    const { gate, waited, open } = opening();
    const { toolstack, qemu, summary } = session(
      {},
      { gates: { device_add: gate }, execute: (command, args) => ({ command, args }) },
    );
    await toolstack.send(
      `{"execute":"qmp_capabilities"}{'execute':'device_add', "arguments":{"id":"x"},"id":7}{"execute":"query-pci","id":8}`,
    );
    for (let round = 0; round < 50; round++) await settle();
    expect([waited, qemu.received]).toEqual([[{ id: "x" }], ["qmp_capabilities"]]);
    open();
    await toolstack.until('"id":8');
    expect(qemu.received).toEqual(["qmp_capabilities", "device_add", "query-pci"]);
    expect(toolstack.lines.at(-2)).toBe('{"return":{"command":"device_add","args":{"id":"x"}},"id":7}');
    toolstack.stream.close();
    expect(await summary).toEqual({ endedBy: "toolstack", commands: 3 });
  });

  test("refuses in QEMU's place, after the answers to what came before", async () => {
    const { toolstack, qemu, summary } = session(
      {},
      { gates: { device_add: () => Promise.reject(new Error("no such device")) } },
    );
    await toolstack.send(
      '{"execute":"qmp_capabilities","id":1}{"execute":"stop","id":2}{"execute":"device_add","id":3}{"execute":"cont","id":4}',
    );
    await toolstack.until('"id":4');
    expect(toolstack.lines.slice(1)).toEqual([
      '{"return":{},"id":1}',
      '{"return":{},"id":2}',
      '{"error": {"class":"GenericError","desc":"no such device"}, "id": 3}',
      '{"return":{},"id":4}',
    ]);
    expect(qemu.received).toEqual(["qmp_capabilities", "stop", "cont"]);
    toolstack.stream.close();
    await summary;
  });

  test("that opens when the session is over passes nothing on", async () => {
    const { gate, waited, open } = opening();
    const { toolstack, qemu, summary, ends } = session({}, { gates: { device_add: gate } });
    await toolstack.send('{"execute":"qmp_capabilities"}{"execute":"device_add"}');
    while (waited.length === 0) await settle();
    for (const end of ends) end.close();
    open();
    await summary;
    expect(qemu.received).toEqual(["qmp_capabilities"]);
  });
});
