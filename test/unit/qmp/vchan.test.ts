import { describe, expect, test } from "vitest";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import type { Logger } from "../../../agent/log/logger.ts";
import type { Descriptors } from "../../../agent/platform/port.ts";
import type { CommandHandler } from "../../../agent/qmp/proxy.ts";
import { toolstackSession } from "../../../agent/qmp/toolstack.ts";
import { serveVchan } from "../../../agent/qmp/vchan.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeQemuMonitor, type FakeQemuOptions } from "../../fakes/qemu.ts";
import { memoryStream } from "../../fakes/stream.ts";
import { type FakeVchanClient, FakeVchans } from "../../fakes/vchan.ts";

function serve(
  options: FakeQemuOptions & { takeOver?: Record<string, CommandHandler>; connect?: () => never } = {},
) {
  const vchans = new FakeVchans();
  const clock = new FakeClock();
  const monitors: FakeQemuMonitor[] = [];
  const lines: string[] = [];
  const note = (level: string) => (_: object, message: string) => void lines.push(`${level}: ${message}`);
  const log: Logger = { debug() {}, info: note("info"), warn: note("warn"), error: note("error") };
  const start = () =>
    serveVchan({
      vchans,
      descriptors: vchans.descriptors as Descriptors,
      clock,
      log,
      domid: 0,
      path: "/local/domain/2/device-model/1/qmp-vchan",
      complain: (text) => log.error({}, text),
      withdraw: () => vchans.withdraw(),
      label: "QMP",
      session: (client) =>
        toolstackSession(client, {
          log,
          connect:
            options.connect ??
            (() => {
              const [ours, theirs] = memoryStream({ seed: monitors.length, largestPiece: 40 });
              monitors.push(new FakeQemuMonitor(theirs, options));
              return ours;
            }),
          takeOver: new Map(Object.entries(options.takeOver ?? {})),
        }),
    });
  return { vchans, clock, monitors, lines, start };
}

/** Reads until `text` has come; returns all that came. */
async function until(client: FakeVchanClient, text: string): Promise<string> {
  let all = "";
  while (!all.includes(text)) {
    const chunk = await client.read();
    if (chunk === null) throw new Error(`the end instead of ${text}, after: ${all}`);
    all += decodeText(chunk);
  }
  return all;
}

/** As libxl does it: waits for the greeting, negotiates, runs one command, leaves at once. */
async function oneCommand(vchans: FakeVchans, id: number): Promise<string> {
  const client = await vchans.connect();
  await until(client, "\r\n");
  await client.write(encodeText('{"execute":"qmp_capabilities","id":0}\r\n'));
  await until(client, "\r\n");
  await client.write(encodeText(`{"execute":"query-status","id":${id}}\r\n`));
  const answer = await until(client, "\r\n");
  client.close();
  return answer;
}

describe("sessions of the toolstack", () => {
  test("100 of them, back to back, each greeted and answered", async () => {
    const { vchans, monitors, lines, start, clock } = serve({ execute: () => ({ running: true }) });
    const server = start();
    for (let id = 1; id <= 100; id++) {
      expect(await oneCommand(vchans, id)).toBe(`{"return":{"running":true},"id":${id}}\r\n`);
      expect(vchans.open).toBeLessThanOrEqual(1);
    }
    await settle();
    await Promise.all(monitors.map(({ done }) => done));
    expect(server.sessions).toBe(100);
    expect(monitors).toHaveLength(100);
    await server.stop();
    expect([vchans.open, clock.pending, lines]).toEqual([0, 0, []]);
  });

  test("the offer is withdrawn before the greeting is passed on", async () => {
    const { vchans, start } = serve();
    const server = start();
    const client = await vchans.connect();
    await until(client, "QMP");
    expect(vchans.offer).toBeUndefined();
    client.close();
    await server.stop();
  });

  test("clients that leave at any moment harm no later one", async () => {
    const { vchans, monitors, start } = serve();
    const server = start();
    for (let round = 0; round < 60; round++) {
      const client = await vchans.connect();
      for (let step = 0; step < round % 5; step++) await settle();
      if (round % 3 > 0) await until(client, "QMP");
      if (round % 3 === 1) await client.write(encodeText('{"execute": "qmp_capab'));
      if (round % 3 === 2) await client.write(encodeText('{"execute": "qmp_capabilities"}'));
      client.close();
      expect(await oneCommand(vchans, round)).toContain(`"id":${round}`);
    }
    await server.stop();
    await Promise.all(monitors.map(({ done }) => done));
    expect(vchans.open).toBe(0);
  });

  test("a reply larger than the ring arrives whole", async () => {
    const { vchans, start } = serve({ execute: () => "y".repeat(50_000) });
    const server = start();
    const client = await vchans.connect();
    await client.write(encodeText(`{"execute":"qmp_capabilities"}${" ".repeat(5000)}{"execute":"q","id":1}`));
    expect(await until(client, '"id":1}')).toContain("y".repeat(50_000));
    client.close();
    await server.stop();
  });

  test("commands can be taken over", async () => {
    const { vchans, start, monitors } = serve({ takeOver: { "query-status": async () => "ours" } });
    const server = start();
    expect(await oneCommand(vchans, 5)).toBe('{"return": "ours", "id": 5}\r\n');
    expect(monitors[0]?.received).toEqual(["qmp_capabilities"]);
    await server.stop();
  });
});

describe("what can go wrong", () => {
  test("10 MB without an end: one line in the log, and the next client is served", async () => {
    const { vchans, start, lines } = serve();
    const server = start();
    const client = await vchans.connect();
    await expect(client.write(encodeText(`{"x": "${"x".repeat(10 * 1024 * 1024)}`))).rejects.toThrow(
      "closed",
    );
    expect(await oneCommand(vchans, 1)).toContain('"id":1');
    expect(lines).toEqual([
      "warn: QMP: a session of 0 commands was cut: a message has no end within 1048576 bytes; the next one starts anew",
    ]);
    await server.stop();
  });

  test("no QEMU: the client sees the end of its connection", async () => {
    const { vchans, start, lines } = serve({
      connect() {
        throw new Error("ECONNREFUSED");
      },
    });
    const server = start();
    const client = await vchans.connect();
    expect(await client.read()).toBeNull();
    client.close();
    expect(lines).toEqual([
      "warn: QMP: no connection to QEMU for the toolstack: Error: ECONNREFUSED; QEMU hangs or has ended, see its lines above",
    ]);
    await server.stop();
  });

  test("QEMU dies during a session: the client sees the end", async () => {
    const { vchans, start, monitors } = serve({ execute: () => new Promise(() => {}) });
    const server = start();
    const client = await vchans.connect();
    await until(client, "QMP");
    monitors[0]?.sendText("no QMP at all").catch(() => {});
    while ((await client.read()) !== null);
    client.close();
    expect(await until(await vchans.connect(), "QMP")).toContain("QMP");
    await server.stop();
  });

  test("no ring can be made: said once for each reason, tried again more and more slowly, and it recovers", async () => {
    const { vchans, start, clock, lines } = serve();
    vchans.failure = new Error("ENOENT");
    const server = start();
    await clock.advance(10_000);
    expect(lines).toHaveLength(1);
    expect(lines[0]).toMatch(/^error: QMP: no vchan for dom0 at .*ENOENT; needs \/dev\/xen\/gntalloc/);
    vchans.failure = new Error("EMFILE");
    await clock.advance(10_000);
    expect(lines.slice(1)).toEqual([expect.stringMatching(/EMFILE/)]);
    vchans.failure = undefined;
    await clock.advance(5000);
    expect(await oneCommand(vchans, 1)).toContain('"id":1');
    await server.stop();
    expect(clock.pending).toBe(0);
  });

  test("a withdrawal that fails is told, and the session goes on", async () => {
    const { vchans, start, lines } = serve();
    vchans.withdraw = () => Promise.reject(new Error("EACCES"));
    const server = start();
    expect(await oneCommand(vchans, 1)).toContain('"id":1');
    expect(lines[0]).toContain("not withdrawn: Error: EACCES");
    await server.stop();
  });
});

test("stop is idempotent, before, during and after a session", async () => {
  const { vchans, start, clock } = serve();
  const server = start();
  await settle();
  const client = await vchans.connect();
  await until(client, "QMP");
  await Promise.all([server.stop(), server.stop()]);
  await server.stop();
  expect(await client.read()).toBeNull();
  expect([vchans.open, clock.pending]).toEqual([0, 0]);

  const idle = serve();
  await idle.start().stop();
  expect(idle.vchans.open).toBe(0);
});
