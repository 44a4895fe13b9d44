/**
 * One round of one variant: a guest is created, measures itself, is watched from dom0 and destroyed. Everything is
 * asked of the host that runs it, so that the emulated host and a machine's own Xen are measured alike.
 */
import { mkdtempSync, readFileSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { PROJECT } from "../../bundler/paths.ts";
import { buildRoot } from "../../bundler/root.ts";
import { inStubdom, withShell } from "../lab/debug-shell.ts";
import { createGuest, Guest, type GuestOptions, installStubdom } from "../lab/guest.ts";
import { guestDisk } from "../lab/guest-disk.ts";
import { helperRuns, installHelper, program, startHelper, stopHelper } from "../lab/helper.ts";
import { SHELL_STUBDOM_CMDLINE, shellStubdomRamdisk } from "../lab/shell-stubdom.ts";
import type { XenHost } from "../lab/xen-host.ts";
import { type Density, type Group, MEASURES, meansWhenCounted, measure } from "./measures.ts";
import { installMinios, type Minios, wholeChecksums } from "./minios.ts";
import { guestProbe } from "./probe.ts";
import {
  leastMemory,
  newProcesses,
  perGuest,
  probeLine,
  probes,
  processes,
  processScript,
  shellQemuStart,
  xlInfo,
  xlList,
} from "./readings.ts";
import { reasonOf } from "./reason.ts";
import type { Recorder } from "./results.ts";
import { screenGuest } from "./screen-guest.ts";
import {
  DOM0_ADDRESS,
  FIRST_PORT,
  figuresOf,
  firstPatience,
  guestFigures,
  guestJobs,
  labelsOf,
  type Settings,
  scratchMiB,
} from "./settings.ts";
import { quantile } from "./statistics.ts";
import { VARIANTS, type VariantName } from "./variants.ts";
import { TRACED, wakeUps } from "./xentrace.ts";

const SHELL_RAMDISK = "/root/shell-stubdom-ramdisk";
const PEER = "/root/bench-peer.py";
const TRACE = "/root/bench-trace";
const WATCH = "/root/bench-watch.py";
/** Bytes; known once it has been made. */
let shellRamdiskSize = 0;
const BRIDGE = "xenbr0";
const MB = 1e6;

export interface Bench {
  readonly host: XenHost;
  readonly settings: Settings;
  readonly recorder: Recorder;
  readonly minios?: Minios;
  /** A bootable image whose guest does these jobs. */
  readonly disk: (jobs: readonly string[]) => Promise<string>;
  /** A bootable image that draws, made in a directory. */
  readonly screen: (directory: string) => Promise<string>;
}

/** The guest that draws. */
export async function drawingDisk(directory: string): Promise<string> {
  return screenGuest((await buildRoot()).path, directory);
}

/** The test guest with the program that measures. */
export async function measuringDisk(jobs: readonly string[]): Promise<string> {
  const probe = new Uint8Array(await guestProbe());
  return guestDisk({ jobs, cmdline: "quiet", files: { probe } });
}

/** What takes something back, to be done in the reverse order. */
export type Undo = (() => Promise<unknown>)[];

/**
 * Brings all images into dom0 and starts the other end of the guests' connections.
 *
 * @param undo gets what takes each thing back before the thing is there
 */
export async function prepare(bench: Bench, variants: readonly VariantName[], undo: Undo): Promise<void> {
  const { host, settings } = bench;
  const files = [`/root/${OURS}*`, STATE, ...(await filesToTakeBack(host))].join(" ");
  undo.push(() => host.run(`rm -rf ${files}`));
  if (variants.some((name) => !["dom0", "minios"].includes(name))) await installStubdom(host);
  if (variants.includes("shell-stubdom")) {
    const ramdisk = await shellStubdomRamdisk();
    shellRamdiskSize = ramdisk.length;
    await host.push(ramdisk, SHELL_RAMDISK);
  }
  const { stdout } = await host.run(
    `ip link show ${BRIDGE} > /dev/null 2>&1 || { ip link add ${BRIDGE} type bridge && echo "link del ${BRIDGE}"; }
     ip link set ${BRIDGE} up
     ip addr show dev ${BRIDGE} | grep -q ' ${DOM0_ADDRESS}/24 ' ||
       { ip addr add ${DOM0_ADDRESS}/24 dev ${BRIDGE} && echo "addr del ${DOM0_ADDRESS}/24 dev ${BRIDGE}"; }`,
  );
  for (const words of stdout.trim().split("\n").filter(Boolean)) undo.push(() => host.run(`ip ${words}`));
  if (!settings.groups.includes("network")) return;
  await host.push(readFileSync(join(import.meta.dirname, "dom0/peer.py")), PEER);
  const peer = host.spawn(["python3", PEER, String(FIRST_PORT), String(settings.tcpBytes)]);
  undo.push(async () => peer.kill(15));
  await new Promise<void>((resolve, reject) => {
    peer.on("stdout", () => resolve());
    peer.exited.then((status) => reject(new Error(`dom0's ${PEER} ended with ${status}`)), reject);
  });
}

/** Of the files that a run leaves in dom0 under names of their own, those that were not there before it. */
async function filesToTakeBack(host: XenHost): Promise<string[]> {
  const ours = [dirname(program), SHELL_RAMDISK, PEER, TRACE, WATCH];
  const absent = 'for file in "$@"; do [ -e "$file" ] || echo "$file"; done';
  return (await host.run(["sh", "-c", absent, "absent", ...ours])).stdout.split("\n").filter(Boolean);
}

/** What makes the variant, beside the guest that all have. */
async function guestOf(
  { host, minios }: Bench,
  variant: VariantName,
): Promise<Pick<GuestOptions, "stubdom" | "extra">> {
  const about = VARIANTS[variant];
  if ("words" in about) return { stubdom: { cmdline: `quiet ${about.words}` } };
  switch (variant) {
    case "dom0":
      return { stubdom: false };
    case "linux-stubdom":
      return { stubdom: true };
    case "shell-stubdom":
      return { stubdom: { ramdisk: SHELL_RAMDISK, memory: 128, cmdline: `quiet ${SHELL_STUBDOM_CMDLINE}` } };
    case "minios":
      if (minios === undefined) throw new RangeError("nobody has given an image of MiniOS");
      return { stubdom: false, extra: await installMinios(host, minios) };
    default:
      throw new RangeError(`nobody knows how to start ${variant}`);
  }
}

async function options(
  bench: Bench,
  variant: VariantName,
  name: string,
  jobs: readonly string[],
): Promise<GuestOptions> {
  const { host, settings, disk } = bench;
  const { extra = {}, ...own } = await guestOf(bench, variant);
  const scratch = `/root/${OURS}scratch-${name}.img`;
  // The same for each variant: no holes, none of what the one before has written, and in dom0's page cache.
  await host.run(`rm -f ${scratch} && head -c ${scratchMiB(settings)}M /dev/urandom > ${scratch} && sync`);
  return {
    name,
    memory: settings.guestMemory,
    images: { hda: await disk(jobs) },
    disks: [{ vdev: "hdb", target: scratch }],
    nics: [{ mac: "00:16:3e:00:0b:01", bridge: BRIDGE, model: "e1000" }],
    timeout: 300,
    extra: { ...(settings.controller === "ahci" ? { hdtype: "ahci" } : {}), ...extra },
    ...own,
  };
}

/** One round of one variant. What it cannot have is noted with its reason. */
export async function measureOnce(bench: Bench, variant: VariantName, round: number): Promise<void> {
  const { host, settings, recorder } = bench;
  const name = `${OURS}${round}`;
  const wantedGroup = (id: string): boolean => settings.groups.some((group) => id.startsWith(`${group}.`));
  const add = (id: string, value: number): void => {
    if (wantedGroup(id) && (!settings.counted || meansWhenCounted(measure(id))))
      recorder.add(variant, id, value);
  };
  const absent = (id: string, reason: string): void => {
    if (wantedGroup(id)) recorder.absent(variant, id, reason);
  };
  const before = processes((await host.run(processScript)).stdout);
  const jobs = guestJobs(settings);
  const wanted = await options(bench, variant, name, jobs);
  let first: number | undefined;
  const guest = await createGuest(host, {
    ...wanted,
    onSerial: () => {
      first ??= Date.now();
    },
  });
  // When xl create was called: copying images before it is the harness's own affair.
  const began = Date.now() - guest.createTime;
  try {
    if (variant === "minios" && settings.groups.includes("network"))
      await wholeChecksums(host, await guest.stubdomId());
    await booted(guest, settings, "guest: up");
    add("start.create", guest.createTime / 1000);
    if (first !== undefined) add("start.serial", (first - began) / 1000);
    add("start.up", (Date.now() - began) / 1000);
    await guest.waitForSerial("guest: ready", settings.patience);
    const said = probes(guest.serialLines);
    for (const label of labelsOf(settings)) {
      try {
        const line = said.get(label);
        if (line === undefined) throw new Error("the guest has not told of it");
        for (const [id, value] of guestFigures(label, probeLine(line), settings.counted)) add(id, value);
      } catch (error) {
        // One thing that does not work says nothing against the others, which were measured before or after it.
        const reason = reasonOf(error);
        for (const id of figuresOf(label)) absent(id, `failed: ${reason}`);
        recorder.trouble(`round ${round + 1}: ${variant}: ${label}: failed: ${reason}`);
      }
    }
    await bootFigures(guest, variant, add, absent);
    if (settings.groups.includes("resources")) await resources(bench, variant, guest, before, add);
    if (settings.groups.includes("idle")) await idle(bench, variant, guest, before, { add, absent });
  } finally {
    await guest.destroy();
    await goneAfter(host, name);
  }
}

/** Waits for a line of a guest's own program, but not as long for one whose firmware says nothing. */
async function booted(guest: Guest, settings: Settings, line: string): Promise<void> {
  await guest.waitForSerial(/\S/, firstPatience(settings));
  await guest.waitForSerial(line, settings.patience);
}

type Add = (id: string, value: number) => void;

/** What ends with the beginning of one of our agent's phases. */
const agentPhases = [
  ["start.init", "init"],
  ["start.devices", "qemu-start"],
  ["start.qemu", "qemu-answers"],
  ["start.agent", "running"],
] as const;

/** What the stub domain tells of its boot: our agent in xenstore, the shell script in its log. */
async function bootFigures(
  guest: Guest,
  variant: VariantName,
  add: Add,
  absent: (id: string, reason: string) => void,
): Promise<void> {
  if (variant === "linux-stubdom" || "words" in VARIANTS[variant]) {
    const agent = await guest.agent();
    const began = (name: string) => Number(agent[`phases/${name}`]);
    for (const [id, name] of agentPhases) add(id, began(name) / 1000);
    add("start.own", began("qemu-answers") - began("init") - Number(agent.waited));
    const least = leastMemory(agent.memory);
    if (least !== undefined) add("resources.used", least / 1024);
    return;
  }
  if (variant !== "shell-stubdom") return;
  const start = shellQemuStart(await guest.qemuDmLog());
  if (start === undefined) {
    for (const id of ["start.qemu", "start.own"]) absent(id, "its log does not tell of QEMU's start");
    return;
  }
  add("start.qemu", start.start / 1000);
  add("start.own", start.own);
}

async function resources(
  { host, minios }: Bench,
  variant: VariantName,
  guest: Guest,
  before: ReturnType<typeof processes>,
  add: Add,
): Promise<void> {
  add("resources.image", imageSize(variant, minios) / MB);
  const domains = xlList((await host.run("xl list")).stdout);
  add("resources.memory", variant === "dom0" ? 0 : domainOf(domains, `${guest.name}-dm`).memory);
  const now = processes((await host.run(processScript)).stdout);
  add("resources.dom0", sum(ours(before, now).map(({ kib }) => kib)) / 1024);
}

function domainOf(domains: ReturnType<typeof xlList>, name: string) {
  const found = domains.get(name);
  if (found === undefined) throw new Error(`${name} is not there any more`);
  return found;
}

/** The console's client is ours, as is whatever runs the script. xl's own process, which looks after the guest, is not. */
const ignored = ["sh", "xenconsole", "sleep", "sed", "awk", "cat", "xentrace"];

function ours(before: ReturnType<typeof processes>, now: ReturnType<typeof processes>) {
  return newProcesses(before, now, ignored);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

/** Bytes of the file or files, as they are kept in dom0. */
function imageSize(variant: VariantName, minios: Minios | undefined): number {
  const size = (name: string) => statSync(join(PROJECT, "dist", name)).size;
  switch (variant) {
    case "dom0":
      return 0;
    case "minios":
      return minios?.image.length ?? 0;
    case "shell-stubdom":
      return size("stubdom-linux-kernel") + shellRamdiskSize;
    default:
      return size("stubdom-linux-kernel") + size("stubdom-linux-ramdisk");
  }
}

async function idle(
  { host, settings }: Bench,
  variant: VariantName,
  guest: Guest,
  before: ReturnType<typeof processes>,
  { add, absent }: { add: Add; absent: (id: string, reason: string) => void },
): Promise<void> {
  // With the host's own time in front, of which xl list's tenth of a second is to be a share.
  const domains = async () => {
    const { stdout } = await host.run("cat /proc/uptime; xl list");
    return { domains: xlList(stdout), at: uptime(stdout) };
  };
  const switches = async () => {
    const { stdout } = await host.run(`cat /proc/uptime; ${processScript}`);
    return { count: sum(ours(before, processes(stdout)).map((line) => line.switches)), at: uptime(stdout) };
  };
  // Counting processes is work for dom0: before the clock starts, and after it has stopped.
  const switchesBefore = await switches();
  const from = await domains();
  // Xen's trace is looked at every 5 s, so that dom0 is nearly as idle as without. Where there is none: sleep.
  const traced = `command -v xentrace > /dev/null && xentrace -D -e ${TRACED} -s 5000 -T ${settings.idleSeconds} ${TRACE}`;
  await host.run(`rm -f ${TRACE}; ${traced} || sleep ${settings.idleSeconds}`, {
    timeout: settings.idleSeconds + 60,
  });
  const to = await domains();
  const switchesAfter = await switches();
  const pair = (name: string) => {
    const [was, is] = [domainOf(from.domains, name), domainOf(to.domains, name)];
    if (was.domid !== is.domid) throw new Error(`${name} was started anew while it was watched`);
    return [was, is] as const;
  };
  const share = (name: string): number => {
    const [was, is] = pair(name);
    return (1000 * (is.seconds - was.seconds)) / (to.at - from.at);
  };
  pair(guest.name);
  const { status } = await host.run(["test", "-s", TRACE], { accept: "any" });
  const wakes = status === 0 ? wakeUps(await host.pull(TRACE)) : undefined;
  const woken = (id: string, ...domids: readonly number[]) => {
    if (wakes === undefined) absent(id, "dom0 has no xentrace, or Xen no trace buffers");
    else add(id, sum(domids.map((domid) => wakes.get(domid) ?? 0)) / settings.idleSeconds);
  };
  const stubdom = `${guest.name}-dm`;
  if (variant === "dom0") {
    add("idle.all", share("Domain-0"));
    woken("idle.wakes-all", 0);
  } else {
    const { domid } = domainOf(to.domains, stubdom);
    add("idle.stubdom", share(stubdom));
    add("idle.all", share("Domain-0") + share(stubdom));
    woken("idle.wakes", domid);
    woken("idle.wakes-all", 0, domid);
  }
  add("idle.dom0", share("Domain-0"));
  // One that has ended takes its own with it.
  const switched = Math.max(0, switchesAfter.count - switchesBefore.count);
  add("idle.switches", switched / (switchesAfter.at - switchesBefore.at));
}

/** Until neither the guest nor its stub domain is listed any more: the next one shall find the host as it was. */
async function gone(host: XenHost, name: string): Promise<void> {
  const wait = `for i in $(seq 100); do xl list | grep -q '^${name}' || exit 0; sleep 0.2; done; exit 1`;
  await host.run(wait, { timeout: 60 });
}

/** The same at the end of a run that may have broken: then its own error counts, not what it has left. */
async function goneAfter(host: XenHost, name: string): Promise<void> {
  await gone(host, name).catch(() => {});
}

/** Of the made-up state: so many that what a transfer costs whatever it carries, attaching the disk above all, is a small part. */
const STATE_BYTES = 32 << 20;
/** The file of a guest that is saved; a directory of the name of each guest is beside it. */
const STATE = "/root/stubdom-bench.saved";
/** What our guests' names begin with: a host that is not emulated may have others. */
const OURS = "stubdom-bench-";

/** Destroys what a run that broke has left. */
export async function clearUp(host: XenHost): Promise<void> {
  // A guest that the emulator killed reboots: it may be between two lives, and xl about to make it anew.
  await host.run(
    `left() { xl list | awk '$1 ~ /^${OURS}/ && $1 !~ /-dm$/ { print $1 }'; }
     for i in $(seq 60); do
       for name in $(left); do xl destroy "$name"; done
       [ -z "$(left)" ] && ! pgrep -f '^[^ ]*xl (create .*/root/${OURS}|restore ${STATE})' && exit
       sleep 1
     done`,
    { accept: "any", timeout: 180 },
  );
}

/**
 * 1, 2, 4... guests at once, and what each further one adds. They are created one after the other: side by side, the scripts
 * of their disks take longer on a slow host than the 10 s after which libxl gives them up. Memory is what Xen has given to
 * domains, but for dom0, which xl may have shrunk to give it, and what dom0's processes use.
 */
export async function measureDensity(bench: Bench, variant: VariantName): Promise<void> {
  const { recorder, settings } = bench;
  const points: Point[] = [];
  try {
    for (const count of settings.density) {
      const point = await together(bench, variant, count);
      points.push(point);
      recorder.add(variant, `density.up-${count}`, point.seconds);
      recorder.add(variant, `density.host-${count}`, point.memory);
    }
  } finally {
    // However far it came.
    if (points.length > 1) {
      const slope = (value: (point: Point) => number) =>
        perGuest(points.map((point) => ({ guests: point.guests, value: value(point) })));
      recorder.add(
        variant,
        "density.time",
        slope(({ seconds }) => seconds),
      );
      recorder.add(
        variant,
        "density.memory",
        slope(({ memory }) => memory),
      );
    }
  }
}

interface Point {
  readonly guests: Density;
  /** Until all were up. */
  readonly seconds: number;
  /** MiB. */
  readonly memory: number;
}

async function together(bench: Bench, variant: VariantName, count: Density): Promise<Point> {
  const { host, settings } = bench;
  const free = async (): Promise<number> => {
    const { stdout } = await host.run("xl info; xl list");
    return Number(xlInfo(stdout, "free_memory")) + domainOf(xlList(stdout), "Domain-0").memory;
  };
  const before = { free: await free(), processes: processes((await host.run(processScript)).stdout) };
  const names = Array.from({ length: count }, (_, index) => `${OURS}dense${index}`);
  const all: Guest[] = [];
  const began = Date.now();
  // Images on their way into dom0.
  let copying = 0;
  try {
    for (const [index, name] of names.entries()) {
      const asked = Date.now();
      const wanted = await options(bench, variant, name, []);
      const mac = `00:16:3e:00:0d:${String(index + 10)}`;
      const guest = await createGuest(host, { ...wanted, nics: [{ mac, bridge: BRIDGE, model: "e1000" }] });
      copying += Date.now() - asked - guest.createTime;
      all.push(guest);
    }
    await Promise.all(all.map((guest) => booted(guest, settings, "guest: up")));
    const seconds = (Date.now() - began - copying) / 1000;
    const now = processes((await host.run(processScript)).stdout);
    const kib = sum(ours(before.processes, now).map((line) => line.kib));
    return { guests: count, seconds, memory: before.free - (await free()) + kib / 1024 };
  } finally {
    for (const guest of all) await guest.destroy();
    for (const name of names) await goneAfter(host, name);
  }
}

/** dom0/watch.py is the viewer, in dom0; the guest, test/xen/screen/guest.S, only draws. */
export async function measureScreen(bench: Bench, variant: VariantName): Promise<void> {
  const { host, settings, recorder } = bench;
  if (variant === "shell-stubdom") return; // neverHas() says why
  await host.push(readFileSync(join(import.meta.dirname, "dom0/watch.py")), WATCH);
  const directory = mkdtempSync(join(tmpdir(), "bench-screen-"));
  try {
    const { stubdom, extra } = await guestOf(bench, variant);
    // dom0's end of the stub domain's screen; without a stub domain it is the guest's own.
    const backend = variant === "dom0" ? {} : { device_model_args_pv: ["-vga", "xenfb"] };
    const guest = await createGuest(host, {
      name: `${OURS}screen`,
      images: { hda: await bench.screen(directory) },
      ...(stubdom !== undefined && { stubdom }),
      extra: { ...extra, vnc: true, vnclisten: "127.0.0.1", vncunused: false, vga: "stdvga", ...backend },
    });
    const drawn = async (letter: string): Promise<void> => {
      const from = guest.serialLines.length;
      guest.type(letter);
      // A BIOS without the mode says so at once.
      const said = await guest.waitForSerial(/drawn|failed/, settings.patience, from);
      if (said.includes("failed")) throw new Error("its VGA BIOS has no mode of 800x600 with 32 bits");
    };
    const watch = async <Said>(...words: readonly (string | number)[]): Promise<Said> => {
      const { stdout } = await host.run(["python3", WATCH, "5900", ...words.map(String)], { timeout: 600 });
      return JSON.parse(stdout) as Said;
    };
    try {
      await booted(guest, settings, "ready");
      await drawn("c");
      const { milliseconds } = await watch<{ milliseconds: (number | null)[] }>(
        "change",
        settings.screenChanges,
      );
      const whole = milliseconds.filter((each) => each !== null);
      if (whole.length === 0) throw new Error("no change of the screen came whole");
      recorder.add(variant, "screen.change", quantile(whole, 0.5));
      // It draws until it is destroyed.
      guest.type("g");
      const { pixels, updates, seconds } = await watch<ScreenRate>("rate", settings.screenSeconds);
      recorder.add(variant, "screen.rate", pixels / (800 * 600) / seconds);
      recorder.add(variant, "screen.updates", updates / seconds);
      if (updates > 0) recorder.add(variant, "screen.update", (4 * pixels) / updates / 1000);
    } finally {
      await guest.destroy();
      await goneAfter(host, `${OURS}screen`);
    }
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** What watch.py says of all that came while the guest drew. */
interface ScreenRate {
  readonly pixels: number;
  readonly updates: number;
  readonly seconds: number;
}

/** Saved to a file in dom0 and restored from it: with dom0's helper for our state disk, and without it. */
export async function measureSave(bench: Bench, variant: VariantName): Promise<void> {
  const { host, recorder } = bench;
  const absent = (ids: readonly string[], reason: string): void => {
    for (const id of ids) recorder.absent(variant, `save.${id}`, reason);
  };
  const [disk, console] = [["save", "restore"] as const, ["console-save", "console-restore"] as const];
  const rates = ["disk-rate", "console-rate"] as const;
  // neverHas() says why.
  if (variant === "shell-stubdom") return;
  if (variant === "dom0" || variant === "minios") return saveOnce(bench, variant, disk);
  await installHelper(host);
  if (await helperRuns(host)) {
    absent([...console, ...rates], "a helper was running in dom0, which is not ours to stop");
    await saveOnce(bench, variant, disk);
    return;
  }
  await saveOnce(bench, variant, console);
  await startHelper(host);
  try {
    await saveOnce(bench, variant, disk);
    await stateRates(bench, variant, rates);
  } finally {
    await stopHelper(host);
  }
}

/** By our own command in the stub domain of a guest that is never unpaused, and so has the processor as in a save. */
async function stateRates(
  bench: Bench,
  variant: VariantName,
  [overDisk, overConsole]: readonly [string, string],
): Promise<void> {
  const { host, recorder } = bench;
  const name = `${OURS}state`;
  const { extra = {}, ...wanted } = await guestOf(bench, variant);
  const about = typeof wanted.stubdom === "object" ? wanted.stubdom : {};
  const words = [about.cmdline, withShell.cmdline].filter((each) => each !== undefined).join(" ");
  const guest = await createGuest(host, {
    name,
    images: { hda: 1 },
    stubdom: { ...about, cmdline: words },
    extra,
    createArgs: ["-p"],
    timeout: 300,
  });
  try {
    for (const [id, target] of [
      [overDisk, "helper"],
      [overConsole, "console"],
    ] as const) {
      const command = `stubdom measure --json --bytes ${STATE_BYTES} ${target} < /dev/zero`;
      const said = await inStubdom(guest, command, 300);
      const seconds = Number(/"seconds":"([\d.]+)"/.exec(said)?.[1]);
      if (!(seconds > 0)) throw new Error(`stubdom measure ${target} said: ${said.slice(0, 200)}`);
      recorder.add(variant, `save.${id}`, STATE_BYTES / seconds / MB);
    }
  } finally {
    await guest.destroy();
    await goneAfter(host, name);
  }
}

async function saveOnce(
  bench: Bench,
  variant: VariantName,
  [saveId, restoreId]: readonly [string, string],
): Promise<void> {
  const { host, recorder, settings } = bench;
  const name = `${OURS}saved`;
  const guest = await createGuest(host, await options(bench, variant, name, ["beat"]));
  try {
    await booted(guest, settings, "guest: beat");
    const saving = Date.now();
    await host.run(["xl", "save", name, STATE], { timeout: 600 });
    const saved = Date.now() - saving;
    await gone(host, name);
    // The restored guest has a new console, and two who follow one would each get a part of it.
    guest.leave();
    const restoring = Date.now();
    await host.run(["xl", "restore", STATE], { timeout: 600 });
    const took = Date.now() - restoring;
    const restored = new Guest(host, name, took, variant !== "dom0");
    try {
      // Only what goes on was restored.
      await restored.waitForSerial("guest: beat", 120);
    } finally {
      await restored.destroy();
    }
    recorder.add(variant, `save.${saveId}`, saved / 1000);
    recorder.add(variant, `save.${restoreId}`, took / 1000);
  } finally {
    await guest.destroy();
    await goneAfter(host, name);
    await host.run(["rm", "-f", STATE]);
  }
}

/** Notes why a run has no figures: for all that it would have measured, unless it is known to be impossible anyhow. */
export function markBroken(
  { recorder, settings }: Pick<Bench, "recorder" | "settings">,
  variant: VariantName,
  groups: readonly Group[],
  reason: string,
): void {
  const impossible = new Set(neverHas(variant).map(([id]) => id));
  for (const each of MEASURES) {
    const { id, group } = each;
    if (!groups.includes(group) || !settings.groups.includes(group) || impossible.has(id)) continue;
    if (!settings.counted || meansWhenCounted(each)) recorder.absent(variant, id, reason);
  }
}

/** dom0's time in seconds, where `cat /proc/uptime` is the first that was printed. */
function uptime(text: string): number {
  const seconds = Number.parseFloat(text);
  if (!(seconds > 0)) throw new Error(`no /proc/uptime in ${JSON.stringify(text.slice(0, 40))}`);
  return seconds;
}

/** Ids of all measures that a variant cannot have, whatever is tried. */
export function neverHas(variant: VariantName): [id: string, reason: string][] {
  const absent = (reason: string, ...ids: readonly string[]): [string, string][] =>
    ids.map((id) => [id, reason]);
  const all = (group: Group): string[] => MEASURES.filter((each) => each.group === group).map(({ id }) => id);
  const told = ["start.agent", "resources.used"];
  const starting = ["start.qemu", "start.own"];
  const phases = ["start.init", "start.devices"];
  const rates = ["save.disk-rate", "save.console-rate"];
  const oneWay = absent(
    "the device state takes the one way that there is",
    "save.console-save",
    "save.console-restore",
  );
  switch (variant) {
    case "dom0":
      return [
        ...absent(
          "there is no stub domain",
          "idle.stubdom",
          "idle.wakes",
          ...told,
          ...phases,
          ...starting,
          ...rates,
        ),
        ...oneWay,
      ];
    case "minios":
      return [
        ...absent("nothing in this stub domain tells it to dom0", ...told, ...phases, ...starting),
        ...absent("only our stub domain has a command that sends made-up state", ...rates),
        ...oneWay,
      ];
    case "shell-stubdom":
      return [
        ...absent("nothing in this stub domain tells it to dom0", ...told, ...phases),
        ...absent("nobody in this stub domain carries the screen out", ...all("screen")),
        ...absent("nobody in this stub domain carries the device state out", ...all("save")),
      ];
    default:
      return [];
  }
}

/** Notes it for all groups that are measured. */
export function markNever(
  { recorder, settings }: Pick<Bench, "recorder" | "settings">,
  variant: VariantName,
): void {
  for (const [id, reason] of neverHas(variant)) {
    if (settings.groups.includes(measure(id).group)) recorder.absent(variant, id, reason);
  }
}
