/** The smaller parts of PID 1, each by itself. */
import { describe, expect, test } from "vitest";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { Children } from "../../../agent/init/children.ts";
import { serveControl } from "../../../agent/init/control-server.ts";
import { applySettings, calmConsoles, settings } from "../../../agent/init/limits.ts";
import { MemoryWatch, memoryAdvice } from "../../../agent/init/memory.ts";
import { DomainReport } from "../../../agent/init/report.ts";
import { shellSession } from "../../../agent/init/shell.ts";
import { type Logger, silentLogger } from "../../../agent/log/logger.ts";
import { type SpawnOptions, SystemError } from "../../../agent/platform/port.ts";
import { DescriptorStream } from "../../../agent/platform/stream.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeDescriptors } from "../../fakes/descriptors.ts";
import { FakeFiles, fakePlatform } from "../../fakes/platform.ts";
import { memoryStream } from "../../fakes/stream.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

function descriptorsOf(kernel: FakeDescriptors) {
  return fakePlatform({
    descriptors: {
      close: (fd) => kernel.close(fd),
      read: (fd, into) => kernel.read(fd, into),
      write: (fd, from) => kernel.write(fd, from),
      onReadable: (fd, ready) => kernel.onReadable(fd, ready),
      onWritable: (fd, ready) => kernel.onWritable(fd, ready),
    },
  }).descriptors;
}

async function quiet(): Promise<void> {
  for (let turn = 0; turn < 60; turn++) await settle();
}

test("limits: every setting is written, and one that is refused is named with its reason", () => {
  const files = new FakeFiles();
  for (const { path } of settings) files.put(path, "");
  expect(applySettings(files)).toEqual([]);
  expect(settings.map(({ path }) => files.text(path))).toEqual(settings.map(({ value }) => value));
  const refused = applySettings(new FakeFiles());
  expect(refused).toHaveLength(settings.length);
  expect(refused[0]).toMatch(/^\/proc\/sys\/vm\/overcommit_memory not set to 1: .*ENOENT; QEMU's map cache/);
});

test("limits: the kernel's console thread is told to wait, and what is in the way is named", () => {
  const files = new FakeFiles();
  const told: number[] = [];
  const processes = fakePlatform({ processes: { yieldWakeUps: (pid) => void told.push(pid) } }).processes;
  expect(calmConsoles({ files, processes })).toMatch(/^the kernel has no thread khvcd; /);
  files.put("/proc/2/comm", "kthreadd\n");
  files.put("/proc/24/comm", "khvcd\n");
  files.put("/proc/25/comm", "qemu-system-i38\n");
  expect(calmConsoles({ files, processes })).toBeUndefined();
  expect(told).toEqual([24]);
  const refusing = fakePlatform({
    processes: {
      yieldWakeUps(pid) {
        throw new SystemError("EPERM", "sched_setscheduler", String(pid));
      },
    },
  }).processes;
  expect(calmConsoles({ files, processes: refusing })).toMatch(/^khvcd keeps interrupting QEMU: .*EPERM/);
});

test("memory: the low-water mark is told, and again only 1 MiB below", () => {
  const files = new FakeFiles();
  const told: number[] = [];
  const watch = new MemoryWatch(files, (_, least) => void told.push(least));
  for (const available of [5000, 6000, 4500, 3976, 3000, 2952]) {
    files.put("/proc/meminfo", `MemTotal:  9000 kB\nMemAvailable:  ${available} kB\n`);
    watch.look();
  }
  expect(told).toEqual([5000, 3976, 2952]);
  expect(watch.look()).toEqual({ total: 9000, available: 2952, least: 2952 });
});

test("memory: a guest whose devices may come to need more than there is, is named with what to do", () => {
  const available = 25_000;
  for (const guest of [64, 4096, 8192, Number.NaN])
    expect(memoryAdvice(guest, { available })).toBeUndefined();
  expect(memoryAdvice(16_384, { available })).toMatch(
    /^a guest of 16384 MiB: .* up to 40 MiB .* 25 are free; raise stubdomain_memory= by 19$/,
  );
  expect(memoryAdvice(8192, { available }, true)).toMatch(/ raise stubdomain_memory= by 16$/);
  // QEMU keeps no more than 32 GiB mapped.
  expect(memoryAdvice(1 << 20, { available: 85_000 })).toBeUndefined();
});

describe("the report to dom0", () => {
  function reporting() {
    const daemon = new FakeXenstored();
    daemon.set("/local/domain/5/device-model/4", "", 5);
    daemon.permit("/local/domain/5/device-model/4", [
      { domid: 5, access: "none" },
      { domid: 4, access: "read" },
    ]);
    const bus = daemon.connect(5);
    const lines: string[] = [];
    const log: Logger = { ...silentLogger, warn: (_, message) => void lines.push(message) };
    const store = new XenstoreClient(bus, new FakeClock());
    const path = "/local/domain/5/device-model/4/agent";
    return { daemon, bus, store, lines, path, report: new DomainReport(store, path, log) };
  }

  test("is closed to the guest before anything stands in it, and keeps its order", async () => {
    const { daemon, report, path } = reporting();
    report.open(5, "1.0");
    report.phase({ phase: "init", began: 12.34 });
    report.phase({ phase: "xenstore", began: 13 });
    await report.flush();
    expect(daemon.requests).toEqual([
      `mkdir ${path}`,
      `setPermissions ${path}`,
      `write ${path}/version`,
      `write ${path}/phase`,
      `write ${path}/phases/init`,
      `write ${path}/phase`,
      `write ${path}/phases/xenstore`,
    ]);
    expect(daemon.get(`${path}/phase`)).toBe("xenstore");
    expect(daemon.get(`${path}/phases/init`)).toBe("12.3");
    const guest = new XenstoreClient(daemon.connect(4), new FakeClock());
    await expect(guest.readText(`${path}/version`)).rejects.toMatchObject({ code: "EACCES" });
    await expect(guest.readText(`${path}/phases/init`)).rejects.toMatchObject({ code: "EACCES" });
    guest.close();
  });

  test("takes any text, printable, and as many whole characters as xenstored takes of a guest", async () => {
    const { daemon, report, path, lines } = reporting();
    report.write("error", `a\n\0${"€".repeat(10_000)}`);
    await report.flush();
    expect(daemon.get(`${path}/error`)).toBe(`a\\x0a\\x00${"€".repeat(630)}`);
    expect(lines).toEqual([]);
  });

  test("that dom0 refuses is complained of once", async () => {
    const { daemon, report, lines, path } = reporting();
    daemon.refuse("write", `${path}/phase`, "EQUOTA", 3);
    for (let n = 0; n < 3; n++) report.write("phase", n);
    report.write("error", "still tried");
    await report.flush();
    expect(lines).toEqual([expect.stringMatching(/^dom0 cannot see the agent's state: .*EQUOTA/)]);
    expect(daemon.get(`${path}/error`)).toBe("still tried");
  });

  test("flush waits for what is on its way, and for nothing when the connection is gone", async () => {
    const { bus, report } = reporting();
    bus.hold();
    report.write("phase", "failed");
    let flushed = false;
    void report.flush().then(() => {
      flushed = true;
    });
    await quiet();
    expect(flushed).toBe(false);
    bus.close();
    await quiet();
    expect(flushed).toBe(true);
  });
});

describe("the control socket", () => {
  function serving(answer: (question: unknown) => Promise<unknown>) {
    const kernel = new FakeDescriptors();
    const waiting: number[] = [];
    let knock: (() => void) | null = null;
    const descriptors = descriptorsOf(kernel);
    const listener = 999;
    const platform = fakePlatform({
      descriptors: {
        ...descriptors,
        close: (fd) => kernel.close(fd),
        read: (fd, into) => kernel.read(fd, into),
        write: (fd, from) => kernel.write(fd, from),
        onWritable: (fd, ready) => kernel.onWritable(fd, ready),
        onReadable(fd, ready) {
          if (fd !== listener) return kernel.onReadable(fd, ready);
          knock = ready;
          if (waiting.length > 0 && ready) setImmediate(() => knock?.());
        },
      },
      sockets: { listenUnix: () => listener, accept: () => waiting.shift() ?? null },
    });
    serveControl(platform, silentLogger, answer);
    const connect = () => {
      const [ours, theirs] = kernel.pair();
      waiting.push(theirs);
      setImmediate(() => knock?.());
      return new DescriptorStream(descriptors, ours, "client");
    };
    const ask = async (text: string) => {
      const client = connect();
      void client.write(encodeText(text)).catch(() => {});
      let all = "";
      for (let chunk = await client.read(); chunk !== null; chunk = await client.read())
        all += decodeText(chunk);
      client.close();
      return all;
    };
    return { kernel, connect, ask, waiting };
  }

  test("answers, tells errors, and gives every connection back", async () => {
    const { kernel, ask } = serving(async (question) => {
      if (JSON.stringify(question).includes("bad")) throw new Error("no such thing");
      return question;
    });
    expect(await ask('{"ask":"status"}\n')).toBe('{"result":{"ask":"status"}}\n');
    expect(await ask('{"ask":"bad"}\n')).toBe('{"error":"no such thing"}\n');
    expect(await ask("{\n")).toMatch(/^\{"error":".*JSON/);
    await quiet();
    expect(kernel.count).toBe(0);
  });

  test("drops a question without an end", async () => {
    const { kernel, ask } = serving(async () => "never");
    expect(await ask("x".repeat(200_000))).toBe("");
    await quiet();
    expect(kernel.count).toBe(0);
  });

  test("serves eight at once, and the next when one has left", async () => {
    const { connect, ask, waiting } = serving(async () => "fine");
    const silent = Array.from({ length: 8 }, connect);
    await quiet();
    const ninth = ask('{"ask":"log"}\n');
    await quiet();
    expect(waiting).toHaveLength(1);
    silent[3]?.close();
    expect(await ninth).toBe('{"result":"fine"}\n');
  });
});

describe("the debug shell", () => {
  function shell({ missing = false } = {}) {
    const kernel = new FakeDescriptors();
    const killed: number[] = [];
    const ended: number[] = [];
    const child = { fd: -1 };
    const platform = fakePlatform({
      descriptors: descriptorsOf(kernel),
      sockets: kernel.sockets,
      files: {
        ...fakePlatform().files,
        readDirectory: () => ["1", "50", "51", "52", "self", "53"],
        readFile: (path) => {
          const session = { "/proc/51/stat": "50", "/proc/52/stat": "7" }[path];
          if (session === undefined || killed.includes(51)) throw new SystemError("ENOENT", "open", path);
          return encodeText(`51 (a) b) c) S 50 51 ${session} 0 -1`);
        },
      },
      processes: {
        spawn({ descriptors }: SpawnOptions) {
          if (missing) throw new SystemError("ENOENT", "spawn", "/bin/sh");
          child.fd = kernel.inherit(descriptors[0] ?? -1);
          return 50;
        },
        kill(pid) {
          killed.push(pid);
          if (pid !== 50) return;
          ended.push(pid);
          kernel.close(child.fd);
          setImmediate(() => children.reapAll());
        },
        reap: () => {
          const pid = ended.shift();
          return pid === undefined ? null : { pid, code: 0, signal: null };
        },
      },
    });
    const children = new Children(platform.processes);
    const [client, far] = memoryStream();
    const session = shellSession(platform, children, silentLogger, client);
    const exit = () => {
      ended.push(50);
      children.reapAll();
      kernel.close(child.fd);
    };
    return { kernel, killed, child, far, session, exit };
  }

  test("is joined with its client, and ended with it", async () => {
    const { kernel, killed, child, far, session } = shell();
    await far.write(encodeText("ls\n"));
    await quiet();
    const typed = new Uint8Array(10);
    expect(kernel.read(child.fd, typed)).toBe(3);
    kernel.write(child.fd, encodeText("bin"));
    let seen = "";
    while (seen.length < 3) seen += decodeText((await far.read()) ?? new Uint8Array());
    expect(seen).toBe("bin");
    far.close();
    expect(await session).toBe(true);
    // And what was started in it, by its session's number.
    expect([killed, kernel.count]).toEqual([[50, 51], 0]);
  });

  test("that ends by itself is not signalled: its number may be another's", async () => {
    const { kernel, killed, session, exit } = shell();
    exit();
    expect(await session).toBe(false);
    expect([killed, kernel.count]).toEqual([[51], 0]);
  });

  test("that is not there ends the session", async () => {
    const { kernel, far, session } = shell({ missing: true });
    expect(await session).toBe(false);
    expect(await far.read()).toBeNull();
    expect(kernel.count).toBe(0);
  });
});
