import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { discoverFrontends } from "../../../agent/frontends/discover.ts";
import type { Logger } from "../../../agent/log/logger.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { Screen } from "../../../agent/screen/screen.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeScreen } from "../../fakes/pixels.ts";
import { FakeFiles, fakePlatform } from "../../fakes/platform.ts";
import { StubdomTree, stubdomId } from "../../fakes/stubdom-tree.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

let clock: FakeClock;
let tree: StubdomTree;
let fake: FakeScreen;
let screen: Screen;
let lines: string[];
let open: Map<number, string>;
let listening: boolean;

beforeEach(async () => {
  const daemon = new FakeXenstored();
  tree = new StubdomTree(daemon);
  tree.screen();
  clock = new FakeClock();
  const store = new XenstoreClient(daemon.connect(stubdomId), clock);
  const files = new FakeFiles();
  files.put("/dev/fb0", "");
  files.put("/dev/input/event0", "");
  files.put("/sys/bus/xen/devices/vfb-0/graphics/fb0/dev", "");
  files.put("/sys/class/input/input0/phys", "xenbus/device/vkbd/0\n");
  files.put("/sys/class/input/input0/event0/dev", "");
  fake = new FakeScreen({ width: 1024, height: 768 });
  lines = [];
  open = new Map();
  listening = true;
  let next = 10;
  const add = (what: string) => {
    open.set(++next, what);
    return next;
  };
  const platform = fakePlatform({
    clock,
    files,
    framebuffers: fake.framebuffers,
    sockets: {
      connectUnix(path) {
        if (!listening) throw new SystemError("ECONNREFUSED", "connect", path);
        return add("socket");
      },
    },
    descriptors: {
      open: (path) => add(path),
      close: (fd) => void open.delete(fd),
      onReadable: (fd, ready) => {
        if (open.get(fd) === "socket") fake.onReadable(ready);
      },
      onWritable: () => {},
      write: (_fd, bytes) => bytes.length,
    },
  });
  const note = (level: string) => (_fields: object, message: string) => lines.push(`${level}: ${message}`);
  const log: Logger = { debug: note("debug"), info: note("info"), warn: note("warn"), error: note("error") };
  const { framebuffers, keyboards } = await discoverFrontends(store);
  const [framebuffer] = framebuffers;
  if (framebuffer === undefined) throw new Error("no screen in the tree");
  screen = new Screen({ platform, store, log, framebuffer, keyboards });
});

afterEach(() => screen.stop());

async function quiet(): Promise<void> {
  for (let i = 0; i < 100; i++) await settle();
}

function states(state: number): void {
  tree.state("device/vfb/0", state);
  tree.state("device/vkbd/0", state);
}

describe("the screen", () => {
  it("is shown when dom0 offers it", async () => {
    states(4);
    await quiet();
    expect([...open.values()].sort()).toEqual(["/dev/fb0", "/dev/input/event0", "socket"]);
    expect(lines).toEqual(["info: screen: QEMU's on /dev/fb0, input from /dev/input/event0"]);
    expect(clock.pending).toBe(0);
  });

  it("that dom0's QEMU does not serve is told with the line that is missing, and shown when it comes", async () => {
    states(3);
    await quiet();
    await clock.advance(5000);
    await quiet();
    expect(lines[0]).toContain('device_model_args_pv = [ "-vga", "xenfb" ]');
    expect(open.size).toBe(0);
    states(4);
    await quiet();
    expect([...open.values()]).toContain("socket");
  });

  it("is given up when dom0 takes it away, and comes back with it", async () => {
    states(4);
    await quiet();
    tree.state("device/vfb/0", 5);
    await quiet();
    expect(open.size).toBe(0);
    expect(screen.summary).toBe("not shown");
    states(4);
    await quiet();
    expect(open.size).toBe(3);
  });

  it("costs nothing but itself when QEMU does not serve it, or talks nonsense", async () => {
    listening = false;
    states(4);
    await quiet();
    expect(lines.at(-1)).toMatch(
      /^warn: the screen is no longer shown: .*ECONNREFUSED.*; the next try is in 1 s$/,
    );
    expect(open.size).toBe(0);
    listening = true;
    states(4);
    await quiet();
    expect(clock.pending).toBe(0);
    fake.send(new TextEncoder().encode("HTTP/1.1 200"));
    await quiet();
    expect(lines.at(-1)).toMatch(/^warn: the screen is no longer shown: RfbError/);
    expect(open.size).toBe(0);
  });

  it("that broke is tried again, ever more seldom, and then shown as ever", async () => {
    listening = false;
    states(4);
    await quiet();
    for (const seconds of [1, 2, 4, 8, 16, 32, 60, 60]) {
      expect(lines.at(-1)).toMatch(new RegExp(`; the next try is in ${seconds} s$`));
      const before = lines.length;
      await clock.advance(seconds * 1000 - 1);
      expect(lines).toHaveLength(before);
      await clock.advance(1);
      await quiet();
      expect(lines).toHaveLength(before + 1);
    }
    listening = true;
    await clock.advance(60_000);
    await quiet();
    expect(open.size).toBe(3);
    // One that lasted begins anew.
    await clock.advance(61_000);
    fake.end();
    await quiet();
    expect(lines.at(-1)).toBe("debug: screen: QEMU closed the screen's socket; the next try is in 1 s");
    await clock.advance(1000);
    await quiet();
    expect(open.size).toBe(3);
    // What dom0 takes away is not tried again.
    fake.end();
    await quiet();
    tree.state("device/vfb/0", 5);
    await quiet();
    await clock.advance(120_000);
    await quiet();
    expect(open.size).toBe(0);
  });

  it("ends with QEMU without a warning, and stop may be called twice", async () => {
    states(4);
    await quiet();
    fake.end();
    await quiet();
    expect(lines.filter((line) => !line.startsWith("debug: "))).toHaveLength(1);
    screen.stop();
    screen.stop();
    await quiet();
    expect(open.size).toBe(0);
    expect(clock.pending).toBe(0);
  });
});
