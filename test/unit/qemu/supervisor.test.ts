import { describe, expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import type { Logger } from "../../../agent/log/logger.ts";
import { type ExitStatus, type SpawnOptions, SystemError } from "../../../agent/platform/port.ts";
import { DescriptorStream } from "../../../agent/platform/stream.ts";
import { QemuEnded, QemuNotStarted, QemuUnresponsive } from "../../../agent/qemu/errors.ts";
import { spawnQemu } from "../../../agent/qemu/spawn.ts";
import { QemuSupervisor } from "../../../agent/qemu/supervisor.ts";
import type { QmpEvent } from "../../../agent/qmp/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeDescriptors } from "../../fakes/descriptors.ts";
import { fakePlatform } from "../../fakes/platform.ts";
import { FakeQemuMonitor, type FakeQemuOptions } from "../../fakes/qemu.ts";

interface FakeQemuProcess extends FakeQemuOptions {
  readonly missing?: boolean;
}

async function start(process: FakeQemuProcess = {}) {
  const clock = new FakeClock();
  const kernel = new FakeDescriptors();
  const lines: string[] = [];
  const note = (level: string) => (_: object, message: string) => void lines.push(`${level}: ${message}`);
  const log: Logger = { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };
  const events: QmpEvent[] = [];
  const killed: string[] = [];
  const spawned: SpawnOptions[] = [];
  const child = { output: -1, monitor: -1, extra: -1, alive: false };

  const [monitor, monitorEnd] = kernel.pair();
  const [ours, tap] = kernel.pair();
  kernel.close(ours);
  const die = (status: Partial<ExitStatus>) => {
    if (!child.alive) return;
    child.alive = false;
    kernel.close(child.output);
    kernel.close(child.extra);
    childMonitor?.close();
    setImmediate(() => qemu?.exited({ pid: 77, code: null, signal: null, ...status }));
  };
  const platform = fakePlatform({
    clock,
    descriptors: {
      close: (fd) => kernel.close(fd),
      read: (fd, into) => kernel.read(fd, into),
      write: (fd, from) => kernel.write(fd, from),
      onReadable: (fd, ready) => kernel.onReadable(fd, ready),
      onWritable: (fd, ready) => kernel.onWritable(fd, ready),
    },
    sockets: kernel.sockets,
    processes: {
      spawn(options) {
        spawned.push(options);
        if (process.missing) throw new SystemError("ENOENT", "spawn", "/q");
        const [, output, , end, , , extra] = options.descriptors;
        child.output = kernel.inherit(output ?? -1);
        child.monitor = kernel.inherit(end ?? -1);
        child.extra = kernel.inherit(extra ?? -1);
        child.alive = true;
        return 77;
      },
      executedAt: () => clock.now(),
      kill(_, signal) {
        killed.push(signal);
        die({ signal });
      },
    },
  });

  let qemu: QemuSupervisor | undefined;
  let childMonitor: DescriptorStream | undefined;
  const launch = () =>
    new QemuSupervisor(
      platform,
      log,
      spawnQemu(platform, {
        argv: ["/q", "-x"].map(encodeText),
        env: ["A=b"],
        confined: true,
        descriptors: new Map([
          [3, monitorEnd],
          [6, tap],
        ]),
        monitor,
      }),
      { onEvent: (event) => events.push(event) },
    );
  if (process.missing) return { launch, kernel, lines, clock };
  qemu = launch();
  childMonitor = new DescriptorStream(platform.descriptors, child.monitor, "child's monitor");
  const qmp = new FakeQemuMonitor(childMonitor, process);
  return {
    qemu,
    qmp,
    die,
    launch,
    clock,
    kernel,
    lines,
    events,
    killed,
    spawned,
    print: (text: string | Uint8Array) =>
      kernel.write(child.output, typeof text === "string" ? encodeText(text) : text),
    ready: () => qemu.ready(5000, 1000, () => lines.push("late")),
  };
}

type Started = Required<Awaited<ReturnType<typeof start>>>;

async function running(process: FakeQemuProcess = {}): Promise<Started> {
  const started = (await start(process)) as Started;
  await started.ready();
  return started;
}

describe("start", () => {
  test("in a session of its own, with its descriptors and no others", async () => {
    const { spawned, kernel, qemu, clock } = await running();
    expect(spawned[0]).toMatchObject({ env: ["A=b"], newSession: true, confined: true });
    const [input, output, error, monitor, four, five, tap, ...rest] = spawned[0]?.descriptors ?? [];
    expect([input, four, five, rest]).toEqual([null, null, null, []]);
    expect(output).toBe(error);
    expect(typeof output === "number" && typeof monitor === "number" && typeof tap === "number").toBe(true);
    // The child's three, our end of the output and of the monitor.
    expect(kernel.count).toBe(5);
    expect([qemu.pid, qemu.qmp.state, clock.pending]).toEqual([77, "ready", 0]);
  });

  test("of a program that is not there leaves nothing open", async () => {
    const { launch, kernel } = await start({ missing: true });
    expect(launch).toThrow(QemuNotStarted);
    expect(kernel.count).toBe(0);
  });

  test("that hangs before QMP answers is noticed, then given up", async () => {
    const { clock, ready, lines, print, qemu } = (await start({ silent: true })) as Started;
    print("qemu: warning: busy\n");
    const result = ready().catch((error: unknown) => error);
    await clock.advance(999);
    expect(lines).toEqual(["info: qemu: qemu: warning: busy"]);
    await clock.advance(1);
    expect(lines.at(-1)).toBe("late");
    await clock.advance(4000);
    const error = await result;
    expect(error).toBeInstanceOf(QemuUnresponsive);
    expect(String(error)).toBe(
      "QemuUnresponsive: QEMU did not answer on QMP within 5 s (its last lines: qemu: warning: busy); " +
        "see its lines above, or raise stubdom.qemu_deadline",
    );
    expect(qemu.qmp.state).toBe("closed");
    expect(clock.pending).toBe(0);
  });

  test("that exits at once tells how and with which words", async () => {
    const { clock, ready, print, die, kernel } = (await start({ silent: true })) as Started;
    const result = ready().catch((error: unknown) => error);
    await clock.advance(300);
    print("qemu: -drive x: No such file\nqemu: giving up");
    die({ code: 1 });
    const error = await result;
    expect(error).toBeInstanceOf(QemuEnded);
    expect(error).toMatchObject({
      message:
        "QEMU exited with 1 after 0.3 s (its last lines: qemu: -drive x: No such file | qemu: giving up); " +
        "its lines above say why; look at the guest's disk=, vif= and device_model_args_hvm=",
      expected: false,
      ranFor: 300,
    });
    expect(kernel.count).toBe(0);
    expect(clock.pending).toBe(0);
  });
});

describe("its life", () => {
  test("events are told", async () => {
    const { qmp, events } = await running();
    await qmp.event("RESET", { guest: true });
    for (let round = 0; round < 5; round++) await settle();
    expect(events).toEqual([{ name: "RESET", data: { guest: true } }]);
  });

  test("its death by a signal is told once", async () => {
    const { qemu, die, clock } = await running();
    await clock.advance(2000);
    die({ signal: "SIGKILL" });
    const ended = await qemu.ended;
    expect(ended.message).toBe(
      "QEMU was killed by SIGKILL after 2.0 s; memory has run out, or someone ended it; raise stubdomain_memory=",
    );
    qemu.exited({ pid: 77, code: 5, signal: null });
    expect(await qemu.ended).toBe(ended);
    expect(await qemu.stop()).toBe(ended);
    await expect(qemu.qmp.execute("x")).rejects.toThrow("closed");
  });

  test("a process that keeps its output open does not delay the news", async () => {
    const { qemu, clock, print, lines } = await running();
    print("half a line");
    qemu.exited({ pid: 77, code: 3, signal: null });
    await clock.advance(99);
    expect(lines).toEqual([]);
    await clock.advance(1);
    expect((await qemu.ended).message).toMatch(
      /^QEMU exited with 3 after 0.0 s \(its last lines: half a line\); /,
    );
    expect(lines).toEqual(["info: qemu: half a line"]);
  });
});

describe("stop", () => {
  test("is SIGKILL, once, and nothing is asked of QEMU: it would power its guest off", async () => {
    const { qemu, killed, kernel, clock, qmp } = await running();
    const [first, second] = await Promise.all([qemu.stop(), qemu.stop()]);
    expect(first).toBe(second);
    expect(first).toMatchObject({ expected: true, status: { signal: "SIGKILL" } });
    expect(qmp.received).toEqual(["qmp_capabilities"]);
    expect(killed).toEqual(["SIGKILL"]);
    expect([kernel.count, clock.pending]).toEqual([0, 0]);
  });

  test("of one that has not answered yet", async () => {
    const { qemu, killed } = (await start({ silent: true })) as Started;
    await qemu.stop();
    expect(killed).toEqual(["SIGKILL"]);
  });
});
