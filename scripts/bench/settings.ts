/** What all variants of one benchmark have in common, and what a person may choose. */
import { DENSITY, type Density, GROUPS, type Group } from "./measures.ts";

export interface Settings {
  /** Rounds; each variant is measured once in each. */
  readonly runs: number;
  readonly groups: readonly Group[];
  /** For time that follows instructions: the mean of the lowest nine tenths in place of a median, see {@link guestFigures}. */
  readonly counted: boolean;
  /** Of the guest's disks. MiniOS' QEMU knows no AHCI, so that all have IDE when it takes part. */
  readonly controller: "ahci" | "ide";
  /** MiB. */
  readonly guestMemory: number;
  /** Seconds that the idle guest is watched. */
  readonly idleSeconds: number;
  readonly portReads: number;
  readonly mmioReads: number;
  readonly cpuRounds: number;
  /** Beside a program that reads a port: many turns of the guest's scheduler, which has 100 a second. */
  readonly besideRounds: number;
  /** Requests of each kind; those in order have 64 KiB, the others 4 KiB. */
  readonly sequential: number;
  readonly random: number;
  readonly flushed: number;
  /** Bytes each way. */
  readonly tcpBytes: number;
  readonly udpPackets: number;
  readonly echoes: number;
  /** Guests at once. */
  readonly density: readonly Density[];
  /** Whole screens that a key brings, and seconds of drawing. */
  readonly screenChanges: number;
  readonly screenSeconds: number;
  /** Seconds, PATIENCE times (lab/patience.ts), for one guest to do all of it. */
  readonly patience: number;
}

const full: Omit<Settings, "runs" | "groups" | "counted" | "controller"> = {
  guestMemory: 64,
  idleSeconds: 60,
  portReads: 20_000,
  mmioReads: 20_000,
  cpuRounds: 20_000_000,
  besideRounds: 400_000_000,
  sequential: 256,
  random: 500,
  flushed: 200,
  tcpBytes: 8 << 20,
  udpPackets: 5_000,
  echoes: 1_000,
  density: DENSITY,
  screenChanges: 10,
  screenSeconds: 30,
  patience: 1200,
};

/** Ten minutes with three variants on the emulated host. */
const quick: typeof full = {
  ...full,
  idleSeconds: 15,
  portReads: 4_000,
  mmioReads: 4_000,
  cpuRounds: 5_000_000,
  sequential: 64,
  random: 100,
  flushed: 100,
  tcpBytes: 2 << 20,
  udpPackets: 1_000,
  echoes: 200,
  density: [1, 2, 4],
};

/** What does not depend on this machine needs few; some hundred milliseconds, for the ticks to drift (guestJobs()). */
const counting: typeof full = {
  ...full,
  portReads: 4_000,
  mmioReads: 4_000,
  cpuRounds: 500_000,
  random: 200,
  echoes: 200,
  patience: 3600,
};

/** Left out of the short version: each needs guests of its own. */
const slow: readonly Group[] = ["density", "screen", "save"];
/** The only ones with figures that mean anything when time follows instructions. */
const counted: readonly Group[] = ["resources", "access", "disk", "network"];

export interface Choice {
  readonly quick: boolean;
  readonly minios: boolean;
  readonly icount: boolean;
  readonly runs?: number;
  /** Names of {@link GROUPS}; all that fit when there is none. */
  readonly only?: readonly string[];
}

/** @throws RangeError for what cannot be chosen */
export function settingsOf(choice: Choice): Settings {
  const all = Object.keys(GROUPS) as Group[];
  const chosen = choice.only?.map((name) => {
    const group = all.find((each) => each === name);
    if (group === undefined) throw new RangeError(`no group ${name}; there are ${all.join(", ")}`);
    return group;
  });
  const fitting = all.filter(
    (group) => (!choice.icount || counted.includes(group)) && (!choice.quick || !slow.includes(group)),
  );
  const uncounted = chosen?.filter((group) => choice.icount && !counted.includes(group)) ?? [];
  if (uncounted.length > 0)
    throw new RangeError(
      `--icount: nothing of ${uncounted.join(", ")} is counted, but ${counted.join(", ")}`,
    );
  const runs = choice.runs ?? (choice.quick || choice.icount ? 1 : 5);
  if (!Number.isInteger(runs) || runs < 1) throw new RangeError(`--runs ${runs}: must be a number from 1`);
  return {
    ...(choice.icount ? counting : choice.quick ? quick : full),
    runs,
    groups: chosen ?? fitting,
    counted: choice.icount,
    controller: choice.minios ? "ide" : "ahci",
  };
}

/** Seconds, PATIENCE times, until a guest says anything: one that never will is not waited for as one that works. */
export function firstPatience({ patience }: Settings): number {
  return patience / 4;
}

/** dom0's address on the guests' bridge, and the guest's. */
export const DOM0_ADDRESS = "10.7.0.1";
export const GUEST_ADDRESS = "10.7.0.2";
/** First of the four ports of dom0/peer.py. */
export const FIRST_PORT = 7201;

/** The guest's second disk: what is measured may be overwritten. */
const SCRATCH = "/dev/sdb";

/** The jobs of test/xen/guest/init that measure all this, in an order in which nothing disturbs what follows. */
export function guestJobs(settings: Settings): string[] {
  const all = allGuestJobs(settings);
  if (!settings.counted) return all;
  // An access costs Xen a thousand instructions more while the guest's next tick comes before the stub domain's. Both come
  // every 10 ms, at a distance that is another one in each boot: let it pass through all that there are. And QEMU has more to
  // look after in a guest's first seconds, 650 instructions an access.
  return ["drift", "rest:3", ...all.filter((job) => countedJobs.includes(jobName(job)))];
}

/** The label under which a job's figures come, or the job's own name where it has none. */
function jobName(job: string): string {
  return /^(?:probe:|mmio:)?([^:]+)/.exec(job)?.[1] ?? "";
}

/** Labels of all that the guest will tell of. */
export function labelsOf(settings: Settings): string[] {
  return guestJobs(settings)
    .filter((job) => /^(?:probe|mmio|beside):/.test(job))
    .map(jobName);
}

/** Those with a figure that is counted, and what they need. What is read again was written there before. */
const countedJobs = ["port", "mmio", "cpu", "cold-read", "random-write", "random-read", "nic", "echo"];

function allGuestJobs(settings: Settings): string[] {
  const { groups, portReads, mmioReads, cpuRounds, besideRounds, sequential, random, flushed } = settings;
  const disk = (label: string, ...words: readonly (string | number)[]) =>
    `probe:${label}:disk:${SCRATCH}:${words.join(":")}`;
  const peer = (label: string, command: string, port: number, ...words: readonly number[]) =>
    `probe:${label}:${[command, DOM0_ADDRESS, FIRST_PORT + port, ...words].join(":")}`;
  return [
    ...(groups.includes("access")
      ? [
          `probe:port:port:64:${portReads}`,
          `mmio:mmio:${mmioReads}`,
          `probe:cpu:cpu:${cpuRounds}`,
          `beside:beside:${besideRounds}`,
        ]
      : []),
    ...(groups.includes("disk")
      ? [
          // First what nobody has read: it comes from dom0, where what was written or read before comes from the page cache of
          // whoever has the guest's QEMU.
          disk("cold-read", "read", "random", 4096, random, "none"),
          disk("cold-seq", "read", "seq", 65536, sequential, "none"),
          disk("seq-write", "write", "seq", 65536, sequential, "none"),
          disk("seq-read", "read", "seq", 65536, sequential, "none"),
          disk("random-write", "write", "random", 4096, random, "none"),
          disk("random-read", "read", "random", 4096, random, "none"),
          disk("flush-write", "write", "random", 4096, flushed, "flush"),
          disk("flush-seq", "write", "seq", 65536, flushed, "flush"),
        ]
      : []),
    ...(groups.includes("network")
      ? [
          `nic:${GUEST_ADDRESS}/24`,
          peer("echo", "udp-echo", 3, settings.echoes, 64),
          peer("udp", "udp-rate", 2, settings.udpPackets, 64),
          peer("tcp-out", "tcp-send", 0, settings.tcpBytes),
          peer("tcp-in", "tcp-receive", 1),
        ]
      : []),
  ];
}

/** MiB: twice what is read and written in order, of which the probe has one half for that. */
export function scratchMiB({ sequential }: Settings): number {
  return 2 * Math.max(16, Math.ceil((sequential * 65536) / (1 << 20)));
}

/**
 * What the guest's program said, as figures of {@link MEASURES}.
 *
 * @param counted the mean of the lowest nine tenths in place of a median: what is counted has a few costs that differ by
 *   some hundredths, and a median is now the one, now the other
 */
export function guestFigures(
  label: string,
  values: Readonly<Record<string, number>>,
  counted = false,
): [string, number][] {
  const need = (key: string): number => {
    const value = values[key];
    if (value === undefined) throw new Error(`${label}: no ${key}= in what the guest's program says`);
    return value;
  };
  const typical = () => need(counted ? "low90" : "p50") / 1000;
  const rate = (what: "bytes" | "count", factor: number) =>
    need("ns") === 0 ? 0 : (need(what) / need("ns")) * 1e9 * factor;
  switch (label) {
    case "port":
    case "mmio":
      return [[`access.${label}`, typical()]];
    case "cpu":
      return [["access.cpu", typical()]];
    case "beside":
      return [["access.beside", need("ns") / need("count")]];
    case "cold-seq":
    case "seq-read":
    case "seq-write":
    case "flush-seq":
      return [[`disk.${label}`, rate("bytes", 1e-6)]];
    case "cold-read":
    case "random-read":
    case "random-write":
    case "flush-write": {
      const name = label.replace(/^random-|-(?:read|write)$/g, "");
      return [
        [`disk.${label}`, rate("count", 1)],
        [`disk.${name}-p50`, typical()],
        [`disk.${name}-p99`, need("p99") / 1000],
      ];
    }
    case "tcp-out":
    case "tcp-in":
      return [[`network.${label}`, rate("bytes", 1e-6)]];
    case "udp":
      // Between the first that arrived and the last: n packets are n - 1 distances.
      return [["network.udp", need("span") === 0 ? 0 : ((need("received") - 1) / need("span")) * 1e9]];
    case "echo":
      return [
        ["network.echo-p50", typical()],
        ["network.echo-p90", need("p90") / 1000],
        ["network.echo-p99", need("p99") / 1000],
        ["network.echo-lost", (100 * need("lost")) / (need("lost") + need("count"))],
      ];
    default:
      throw new Error(`nobody has asked for ${label}`);
  }
}

/** Ids of what {@link guestFigures} makes of a label, whatever the guest says. */
export function figuresOf(label: string): string[] {
  const anything = { ns: 1, count: 1, bytes: 1, received: 2, span: 1, lost: 0, p50: 1, p90: 1, p99: 1 };
  return guestFigures(label, anything).map(([id]) => id);
}
