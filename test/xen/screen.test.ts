import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { ScreenCounters } from "../../agent/screen/counters.ts";
import { qemuKey } from "../../agent/screen/keys.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { buildRoot } from "../../bundler/root.ts";
import { encodePng } from "../../scripts/bench/png.ts";
import { screenGuest } from "../../scripts/bench/screen-guest.ts";
import { quantile } from "../../scripts/bench/statistics.ts";
import { createGuest, type Guest, type GuestOptions } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { keyboard } from "./screen/keyboard.ts";
import { Lines } from "./screen/lines.ts";
import { type Picture, ppmHead } from "./screen/picture.ts";
import { Viewer } from "./screen/vnc.ts";
import { full, inStubdom, mostResident, resident, rounds, spread, waitForLog, withShell } from "./support.ts";

/**
 * The guest's screen in dom0's VNC server: a viewer there must see what QMP's screendump says in the stub
 * domain, and what it types and points at must reach the guest.
 */
const line = 'device_model_args_pv = [ "-vga", "xenfb" ]';
const backend = { device_model_args_pv: ["-vga", "xenfb"] };
const vnc = { vnc: true, vnclisten: "127.0.0.1", vncunused: false, vga: "stdvga" };
/** Pictures for the README; `docs/` gets them with LINUX_STUBDOM_PICTURES set. */
const pictures = join(
  PROJECT,
  process.env.LINUX_STUBDOM_PICTURES === undefined ? "dist/screen" : "docs/screen",
);

let host: LabHost;
let directory: string;
let disk: string;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "stubdom-screen-"));
  disk = await screenGuest((await buildRoot()).path, directory);
  host = await LabHost.start({ saved: true });
  mkdirSync(pictures, { recursive: true });
});

afterAll(async () => {
  await host?.stop();
  rmSync(directory, { recursive: true, force: true });
});

/** guest.S, its console line by line, and a viewer. */
class Shown {
  private constructor(
    readonly guest: Guest,
    readonly said: Lines,
    readonly viewer: Viewer,
  ) {}

  static async start(name: string, options: Partial<GuestOptions> = {}): Promise<Shown> {
    const said = new Lines();
    const guest = await createGuest(host, {
      name,
      images: { hda: disk },
      stubdom: withShell,
      extra: { ...vnc, ...backend },
      onSerial: (text) => said.add(text),
      ...options,
    });
    const viewer = await Viewer.connect(host);
    const shown = new Shown(guest, said, viewer);
    await said.next((text) => text.includes("ready"), "guest", 180_000);
    return shown;
  }

  /** Until the guest says that it has drawn. */
  async draw(letter: string): Promise<void> {
    // Somebody is watching: dom0's QEMU looks for changes often then, and so does the stub domain's.
    this.viewer.pointer(1, 1, 0);
    this.guest.type(letter);
    // Setting text mode loads its letters, each byte of them by way of QEMU.
    const answer = await this.said.next((text) => /drawn|failed/.test(text), `picture ${letter}`, 180_000);
    if (answer.includes("failed")) throw new Error(`the guest has no mode ${letter}`);
  }

  async screen(): Promise<ScreenCounters> {
    return JSON.parse(await inStubdom(this.guest, "stubdom status --json")).screen.counters;
  }

  /** SHA-256 of what screendump writes, inside the stub domain: there is no fast way out for megabytes. */
  async dumped(): Promise<string> {
    const file = "/run/screen.ppm";
    const dump = `stubdom qmp screendump '{"filename":"${file}"}' > /dev/null`;
    // Not into memory, which the stub domain has little of.
    const command = `mkfifo ${file}; sha256sum < ${file} > ${file}.sum & ${dump}; wait; cat ${file}.sum; rm ${file} ${file}.sum`;
    const sum = /^[0-9a-f]{64}/m.exec(await inStubdom(this.guest, command))?.[0];
    if (sum === undefined) throw new Error("no sum of a screendump");
    return sum;
  }

  async end(): Promise<void> {
    this.viewer.close();
    await this.guest.destroy();
  }
}

/** The sum of the same picture as screendump would write it. */
function sumOf(picture: Picture): string {
  return createHash("sha256").update(ppmHead(picture)).update(picture.rgb).digest("hex");
}

// Of memory the stub domain has 16 MiB more, which libxl adds for the video RAM of a stdvga.
describe("a guest with vnc=1 and stubdomain_memory=64", () => {
  let shown: Shown;
  beforeAll(async () => {
    shown = await Shown.start("screen");
    await shown.viewer.select();
  });
  afterAll(() => shown?.end());

  it.each([
    ["text", "t", 720, 400],
    ["800x600, 16 bits", "a", 800, 600],
    ["1024x768, 16 bits", "b", 1024, 768],
    ["800x600, 32 bits", "c", 800, 600],
    ["1024x768, 32 bits", "d", 1024, 768],
    // What Linux chooses for a stdvga, and the most that fbfront begins with.
    ["1280x800, 32 bits", "h", 1280, 800],
    ["1920x1080, 32 bits", "i", 1920, 1080],
  ])("%s: the viewer's pixels are screendump's", async (name, letter, width, height) => {
    const { viewer } = shown;
    for (const what of [letter, "p"]) {
      await shown.draw(what);
      const wanted = await shown.dumped();
      await viewer.until(() => sumOf(viewer.picture) === wanted, "screendump's pixels", 60);
      expect(viewer).toMatchObject({ width, height });
    }
    const file = { t: "text", c: "800x600", d: "1024x768" }[letter];
    if (file !== undefined) writeFileSync(join(pictures, `${file}.png`), encodePng(viewer.picture));
    console.log(`${name}: both pictures bit for bit`);
  });

  it("nothing is copied and nothing comes while nothing changes", async () => {
    // What the last change has set in motion comes to rest.
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const before = [await shown.screen(), shown.viewer.updates];
    await new Promise((resolve) => setTimeout(resolve, rounds(10_000, 60_000)));
    expect([await shown.screen(), shown.viewer.updates]).toEqual(before);
  });

  it("105 keys arrive as their scan codes", async () => {
    expect(keyboard).toHaveLength(105);
    const wrong: string[] = [];
    // Num Lock twice, so that it is off again. With it on, dom0's VNC server presses it by itself before every key of
    // the keypad whose keysym is no digit or comma (`keycode_is_keypad` in QEMU's ui/keymaps.c), minus and plus too.
    const keys = keyboard.flatMap((key) => (key.code === 69 ? [key, key] : [key]));
    for (const { code, pressed, released } of keys) {
      const key = qemuKey(code);
      if (key === undefined) throw new Error(`no key ${code}`);
      shown.viewer.key(key, true);
      shown.viewer.key(key, false);
      const last = released || pressed;
      let came = "";
      while (!came.endsWith(last)) {
        came += ` ${(await shown.said.next((text) => /^k/.test(text), `key ${code}`)).trim().slice(1)}`;
      }
      // On a busy host half a second may pass in between, and the key repeats.
      if (!new RegExp(`^( ${pressed})+${released && ` ${released}`}$`).test(came))
        wrong.push(`key ${code}:${came}`);
    }
    expect(wrong).toEqual([]);
  });

  it("a held key repeats until it is let go", async () => {
    shown.viewer.key(0x1e, true);
    for (let i = 0; i < 5; i++) {
      expect((await shown.said.next((text) => /^k/.test(text), "repetition")).trim()).toBe("k1e");
    }
    shown.viewer.key(0x1e, false);
    await shown.said.next((text) => /^k9e/.test(text), "release");
  });

  it("the pointer's motion, its buttons and the wheel reach a PS/2 mouse within one pixel", async () => {
    const { viewer, said } = shown;
    await shown.draw("d");
    shown.guest.type("w");
    // The answers to the last command, and to the one before it.
    for (let i = 0; i < 7; i++) await said.next((text) => /^mfa/.test(text), "mouse");
    /** RFB's buttons of each packet, the way that it went, and the wheel's notches. */
    const packet = async () => {
      const bytes: number[] = [];
      while (bytes.length < 4) {
        const text = await said.next((each) => /^m/.test(each), "packet of the mouse");
        bytes.push(Number.parseInt(text.slice(1, 3), 16));
      }
      const [flags = 0, x = 0, y = 0, z = 0] = bytes;
      // The sign of each is in the first byte; a mouse counts upwards. Right and middle are the other way round.
      const buttons = (flags & 1) | ((flags & 2) << 1) | ((flags & 4) >> 1);
      return { buttons, dx: x - ((flags & 16) << 4), dy: ((flags & 32) << 3) - y, notches: (z << 28) >> 28 };
    };
    let [x, y] = [100, 100];
    /** Follows the mouse until it has these buttons down. */
    const until = async (buttons: number) => {
      for (;;) {
        const { dx, dy, ...rest } = await packet();
        x += dx;
        y += dy;
        if (rest.buttons === buttons) return;
      }
    };
    viewer.pointer(100, 100, 0);
    viewer.pointer(100, 100, 1);
    await until(1);
    [x, y] = [100, 100];
    for (const [toX, toY] of [
      [150, 100],
      [150, 160],
      [90, 60],
      [91, 61],
      // As a hand does it: QEMU's mouse holds four packets of 127 pixels, and what is too much until the next event.
      [300, 250],
      [500, 450],
      [700, 640],
      [701, 640],
    ] as const) {
      viewer.pointer(toX, toY, 1);
      // Middle, right, both: a mark behind the motion, and a test of the buttons.
      for (const buttons of [3, 5, 7, 1]) {
        viewer.pointer(toX, toY, buttons);
        await until(buttons);
      }
      expect(Math.abs(x - toX), `x of ${toX},${toY}`).toBeLessThanOrEqual(1);
      expect(Math.abs(y - toY), `y of ${toX},${toY}`).toBeLessThanOrEqual(1);
    }
    viewer.pointer(701, 640, 0);
    await until(0);
    // Wheel down is forwards for a mouse, up backwards.
    for (const [button, notches] of [
      [16, 1],
      [8, -1],
    ] as const) {
      viewer.pointer(701, 640, button);
      viewer.pointer(701, 640, 0);
      let turned = 0;
      while (turned === 0) turned = (await packet()).notches;
      expect(turned).toBe(notches);
    }
  });

  it("which were enough", async () => {
    const { memory } = JSON.parse(await inStubdom(shown.guest, "stubdom status --json"));
    console.log(`memory of the stub domain: least ${memory.least} of ${memory.total} KiB available`);
    expect(memory.least).toBeGreaterThan(8 * 1024);
    const kib = await resident(shown.guest);
    console.log(`PID 1, with a viewer: ${kib} KiB resident`);
    expect(kib).toBeLessThanOrEqual(mostResident.ever);
    expect(await shown.guest.qemuDmLog()).not.toMatch(/out of memory|oom/i);
  });
});

const changed = 20;

/** watch.py in dom0 at 800x600 with 32 bits a pixel. A change that never comes whole has no time. */
async function measured(shown: Shown): Promise<{ changes: number[]; updatesPerSecond: number }> {
  await shown.draw("c");
  shown.viewer.close();
  const watch = async (...words: string[]) => {
    const port = "5900";
    const { stdout } = await host.run(["python3", "/root/watch.py", port, ...words], { timeout: 300 });
    return JSON.parse(stdout) as { milliseconds: (number | null)[]; pixels: number; seconds: number };
  };
  const { milliseconds } = await watch("change", String(changed));
  const changes = milliseconds.filter((each) => each !== null);
  shown.guest.type("g");
  const { pixels, seconds } = await watch("rate", "30");
  shown.guest.type("x");
  return { changes, updatesPerSecond: pixels / (800 * 600) / seconds };
}

// Two more guests, and figures that mean something on a quiet machine only.
it.runIf(full)("a change on the whole screen, and screens a second, beside QEMU in dom0", async () => {
  await host.push(join(PROJECT, "scripts/bench/dom0/watch.py"), "/root/watch.py");
  const figuresOf = async (name: string, options: Partial<GuestOptions>) => {
    const shown = await Shown.start(`speed-${name}`, options);
    const { changes, updatesPerSecond } = await measured(shown);
    await shown.end();
    console.log(
      `${name}: F5 to the last pixel ${spread(changes)} ms; ${updatesPerSecond.toFixed(2)} whole screens a second`,
    );
    expect(changes, `${name}: changes that came whole`).toHaveLength(changed);
    return { change: quantile(changes, 0.5), rate: updatesPerSecond };
  };
  const ours = await figuresOf("ours", {});
  const dom0 = await figuresOf("dom0", { stubdom: false, extra: vnc });
  const [change, rate] = [ours.change / dom0.change, ours.rate / dom0.rate];
  console.log(`ours over dom0's QEMU: a change ${change.toFixed(2)}, screens a second ${rate.toFixed(2)}`);
  expect(change).toBeLessThanOrEqual(2.5);
  expect(rate).toBeGreaterThanOrEqual(0.5);
});

// Another guest, with Linux.
it.runIf(full)("a USB tablet: absolute positions arrive within one pixel", async () => {
  const job = [
    "#!/bin/busybox sh",
    // A USB device comes when it comes.
    'until [ -n "$tablet" ]; do sleep 1; for d in /sys/class/input/event*; do',
    '  case "$(cat $d/device/name)" in *Tablet*) tablet=/dev/input/$(basename $d);; esac',
    "done; done",
    "exec 3<$tablet",
    // Only a device that is open is asked, and Linux drops what the first 50 ms bring.
    "sleep 1",
    'echo "tablet $tablet"',
    // One struct input_event at a time, as twelve numbers of 16 bits: type, code and value are the ninth and on.
    "while set -- $(dd bs=24 count=1 <&3 2>/dev/null | od -A n -v -t u2); do",
    // biome-ignore lint/suspicious/noTemplateCurlyInString: the shell's.
    '  echo "event $9 ${10} ${11}"',
    "done",
  ].join("\n");
  const lines = new Lines();
  // With the helper in dom0 nobody has to ask for the screen, whatever keyboard it was told of.
  await host.push(join(PROJECT, "dist/stubdom"), "/root/stubdom");
  const helper = host.spawn("chmod 755 /root/stubdom && exec /root/stubdom dom0 serve");
  const guest = await createGuest(host, {
    name: "tablet",
    // A line on the console costs a second here: the serial port's bytes, and the screen that scrolls.
    images: { hda: await guestDisk({ cmdline: "quiet", jobs: ["script"], files: { job } }) },
    stubdom: withShell,
    // What usbdevice="tablet" adds, on USB 3: a device on a UHCI wants a look every millisecond, and the emulated
    // host then does nothing else. libxl does not take usbdevice= and usbversion= together.
    extra: {
      ...vnc,
      ...backend,
      keymap: "de",
      hdtype: "ahci",
      usbversion: 3,
      device_model_args_hvm: ["-device", "usb-tablet"],
    },
    onSerial: (text) => lines.add(text),
  });
  const viewer = await Viewer.connect(host);
  await viewer.until(() => viewer.width !== 640, "the guest's screen", 120);
  await lines.next((text) => /^guest: script tablet \/dev/.test(text), "tablet", 300_000);
  const { width, height } = viewer;
  // A value that did not change is not told again.
  let [atX, atY] = [0, 0];
  for (const [x, y] of [
    [0, 0],
    [1, 1],
    [Math.floor(width / 2), Math.floor(height / 3)],
    [width - 2, height - 2],
    [width - 1, height - 1],
    [17, 230],
  ] as const) {
    viewer.pointer(x, y, 0);
    viewer.pointer(x, y, 1);
    for (;;) {
      const text = await lines.next((each) => /^guest: script event/.test(each), `pointer at ${x},${y}`);
      const [type, code, value = 0] = text.split(" ").slice(3).map(Number);
      if (type === 3 && code === 0) atX = value;
      if (type === 3 && code === 1) atY = value;
      if (type === 1 && code === 272 && value === 1) break;
    }
    const pixel = (at: number, length: number) => Math.floor((at * length) / 0x8000);
    expect(Math.abs(pixel(atX, width) - x), `x of ${x},${y}`).toBeLessThanOrEqual(1);
    expect(Math.abs(pixel(atY, height) - y), `y of ${x},${y}`).toBeLessThanOrEqual(1);
    viewer.pointer(x, y, 0);
  }
  viewer.close();
  await guest.destroy();
  helper.kill(15);
});

it.runIf(full)(
  "without the backend the guest starts all the same, and the log has the line that is missing",
  async () => {
    const shown = await Shown.start("blind", { extra: vnc });
    const said = await waitForLog(shown.guest, /screen.*xenfb/, 60);
    console.log(said);
    expect(said).toContain(line);
    await shown.end();
  },
);
