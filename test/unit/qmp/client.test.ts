import { describe, expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { QmpClient, type QmpEvent } from "../../../agent/qmp/client.ts";
import {
  QmpCommandError,
  QmpConnectionClosed,
  type QmpError,
  QmpFramingError,
  QmpTimeout,
} from "../../../agent/qmp/errors.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeQemuMonitor, type FakeQemuOptions, greeting, Refusal } from "../../fakes/qemu.ts";
import { memoryStream } from "../../fakes/stream.ts";

function connect(options: FakeQemuOptions = {}) {
  const clock = new FakeClock();
  const [ours, theirs] = memoryStream();
  const events: QmpEvent[] = [];
  const ends: QmpError[] = [];
  const client = new QmpClient(ours, {
    clock,
    log: silentLogger,
    onEvent: (event) => events.push(event),
    onClosed: (reason) => ends.push(reason),
  });
  return { clock, client, events, ends, qemu: new FakeQemuMonitor(theirs, options), ours, theirs };
}

async function ready(options: FakeQemuOptions = {}) {
  const connection = connect(options);
  await connection.client.handshake(5000);
  return connection;
}

test("hands a descriptor over with a command, and none with the others", async () => {
  const { client, qemu, ours } = await ready({ execute: (command) => command });
  const both = [client.execute("query-fdsets"), client.executeWith(70, "add-fd", { opaque: "x" })];
  expect(await Promise.all(both)).toEqual(["query-fdsets", "add-fd"]);
  expect(qemu.received).toEqual(["qmp_capabilities", "query-fdsets", "add-fd"]);
  expect(ours.passed).toEqual([70]);
  client.close();
  await expect(client.executeWith(70, "add-fd")).rejects.toThrow(QmpConnectionClosed);
});

test("what answers a command before QEMU has taken its descriptor ends the connection", async () => {
  const { client, qemu, ours } = await ready();
  ours.writeWith = () => new Promise<void>(() => {});
  const refused = expect(client.executeWith(70, "add-fd")).rejects.toThrow(QmpFramingError);
  await qemu.send({ return: {}, id: 2 });
  await refused;
  expect([client.state, ours.closed]).toEqual(["closed", true]);
});

test("a descriptor that QEMU has not taken in time is passed to nobody any more", async () => {
  const { client, clock, ours } = await ready({ execute: (command) => command });
  ours.writeWith = () => new Promise<void>(() => {});
  const result = expect(client.executeWith(70, "add-fd")).rejects.toThrow(QmpTimeout);
  await clock.advance(5000);
  await result;
  expect([client.state, ours.closed]).toEqual(["closed", true]);
});

describe("handshake", () => {
  test("waits for the greeting and negotiates", async () => {
    const { client, qemu, clock } = connect();
    expect(client.state).toBe("greeting");
    await client.handshake(5000);
    expect(client.state).toBe("ready");
    expect(qemu.received).toEqual(["qmp_capabilities"]);
    expect(clock.pending).toBe(0);
  });

  test("gives up on a QEMU that says nothing", async () => {
    const { client, clock, ours } = connect({ silent: true });
    const result = expect(client.handshake(5000)).rejects.toThrow(QmpTimeout);
    await clock.advance(4999);
    expect(client.state).toBe("greeting");
    await clock.advance(1);
    await result;
    expect(client.state).toBe("closed");
    expect(ours.closed).toBe(true);
    expect(clock.pending).toBe(0);
  });

  test("gives up on a QEMU that greets and then hangs", async () => {
    const clock = new FakeClock();
    const [ours, theirs] = memoryStream();
    const client = new QmpClient(ours, { clock, log: silentLogger });
    const result = expect(client.handshake(5000)).rejects.toThrow("no answer to qmp_capabilities");
    await theirs.write(encodeText(greeting));
    await clock.advance(5000);
    await result;
    expect(client.state).toBe("closed");
  });

  test.each([
    ["a stream that ends", ""],
    ["one that ends in the middle of the greeting", '{"QMP": {"ver'],
  ])("%s", async (_, sent) => {
    const [ours, theirs] = memoryStream();
    const client = new QmpClient(ours, { clock: new FakeClock(), log: silentLogger });
    const result = expect(client.handshake(5000)).rejects.toThrow(QmpConnectionClosed);
    await theirs.write(encodeText(sent));
    theirs.close();
    await result;
  });

  test("a line of 10 MB without an end", async () => {
    const [ours, theirs] = memoryStream({ largestPiece: 16384 });
    const client = new QmpClient(ours, { clock: new FakeClock(), log: silentLogger });
    const result = expect(client.handshake(5000)).rejects.toThrow(QmpFramingError);
    const flood = theirs.write(encodeText(`{"QMP": "${"x".repeat(10 * 1024 * 1024)}`));
    await result;
    await expect(flood).rejects.toThrow("closed");
  });
});

describe("commands", () => {
  test("many at once get their own answers", async () => {
    const { client, clock } = await ready({ execute: (command, args) => ({ command, args }) });
    const answers = await Promise.all(["a", "b", "c"].map((name) => client.execute(name, { of: name })));
    expect(answers).toEqual(["a", "b", "c"].map((command) => ({ command, args: { of: command } })));
    expect(clock.pending).toBe(0);
  });

  test("answers out of order find their command", async () => {
    const clock = new FakeClock();
    const [ours, theirs] = memoryStream();
    const client = new QmpClient(ours, { clock, log: silentLogger });
    const qemu = new FakeQemuMonitor(theirs);
    await client.handshake(5000);
    const pending = [client.execute("x"), client.execute("y")];
    await qemu.send({ return: "second", id: 3 });
    await qemu.send({ return: "first", id: 2 });
    expect(await Promise.all(pending)).toEqual(["first", "second"]);
  });

  test("an error has QEMU's class and words", async () => {
    const { client } = await ready({
      execute() {
        throw new Refusal("DeviceNotFound", "Device 'x' not found");
      },
    });
    const error = await client.execute("eject", { device: "x" }).catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(QmpCommandError);
    expect(error).toMatchObject({
      command: "eject",
      errorClass: "DeviceNotFound",
      description: "Device 'x' not found",
    });
    expect(await client.execute("query-status").catch(() => "refused too")).toBe("refused too");
    expect(client.state).toBe("ready");
  });

  test("one that is not answered times out alone, and its late answer goes nowhere", async () => {
    let answer: (value: null) => void = () => {};
    const { client, clock } = await ready({
      execute: (command) =>
        command === "slow"
          ? new Promise<null>((resolve) => {
              answer = resolve;
            })
          : { command },
    });
    const slow = expect(client.execute("slow", {}, 100)).rejects.toThrow("no answer to slow within 0.1 s");
    await clock.advance(100);
    await slow;
    const next = client.execute("next");
    answer(null);
    expect(await next).toEqual({ command: "next" });
    expect(clock.pending).toBe(0);
  });

  test("before the handshake or after the end are refused", async () => {
    const { client } = connect();
    await expect(client.execute("query-status")).rejects.toThrow("greeting");
    client.close();
    await expect(client.execute("query-status")).rejects.toThrow("closed");
  });
});

test("events are told in order", async () => {
  const { qemu, events } = await ready();
  await qemu.event("STOP");
  await qemu.event("RESET", { guest: true });
  await settle();
  expect(events).toEqual([
    { name: "STOP", data: {} },
    { name: "RESET", data: { guest: true } },
  ]);
});

describe("the end of the connection", () => {
  test("rejects what is pending, once, and stops the timers", async () => {
    const { client, theirs, ends, clock } = await ready({ execute: () => new Promise(() => {}) });
    const pending = [client.execute("a"), client.execute("b")].map((each) =>
      expect(each).rejects.toThrow(QmpConnectionClosed),
    );
    await settle();
    theirs.close();
    await Promise.all(pending);
    client.close();
    client.close();
    expect(ends.map(({ message }) => message)).toEqual(["QMP: QEMU closed the connection"]);
    expect(clock.pending).toBe(0);
  });

  test.each([
    ["garbage", "Segmentation fault\r\n"],
    ["a second greeting", greeting],
    ["an event without a name", '{"event": 7}\r\n'],
    ["an id that is no JSON", '{"return": {}, "id": nonsense}\r\n'],
  ])("%s from QEMU ends it", async (_, text) => {
    const { client, qemu, ends } = await ready();
    await qemu.sendText(text);
    await settle();
    expect(client.state).toBe("closed");
    expect(ends[0]).toBeInstanceOf(QmpFramingError);
  });

  test.each([
    ["an answer to nothing", '{"return": {}, "id": 99}\r\n'],
    ["an answer without an id", '{"return": {}}\r\n'],
    ["an error that is no object", '{"error": 5, "id": "x"}\r\n'],
  ])("%s does not", async (_, text) => {
    const { client, qemu } = await ready();
    await qemu.sendText(text);
    expect(await client.execute("query-status")).toEqual({});
  });
});
