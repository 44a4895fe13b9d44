/** Everything that is measured: this table decides what the results hold, and in which order. */
import type { Better } from "./statistics.ts";

export const GROUPS = {
  resources: "Resources",
  idle: "An idle guest",
  start: "Start",
  density: "Several guests at once",
  access: "One emulated access",
  disk: "Disk, through the emulated controller",
  network: "Network, through the emulated NIC",
  screen: "The guest's screen in dom0's VNC server, 800x600",
  save: "Save and restore",
} as const;

export type Group = keyof typeof GROUPS;

export interface Measure {
  readonly id: string;
  readonly group: Group;
  readonly title: string;
  readonly unit: string;
  readonly better: Better;
  /** The same in each run with --icount: by the guest's own clock instructions of the whole host, 1 ns each (guestFigures()), or a size. */
  readonly counted?: boolean;
  /** Of the unit: it is told in steps of so much, and two runs of the same may be one apart; with --icount, no more than one. */
  readonly step?: number;
}

const table = (
  group: Group,
  rows: readonly (readonly [
    id: string,
    title: string,
    unit: string,
    better: Better,
    about?: "counted" | { readonly step: number },
  ])[],
): Measure[] =>
  rows.map(([id, title, unit, better, about]) => ({
    id: `${group}.${id}`,
    group,
    title,
    unit,
    better,
    ...(about === "counted" ? { counted: true } : about),
  }));

/** Whether it is a figure of a run with --icount. */
export const meansWhenCounted = ({ counted, step }: Measure): boolean =>
  counted === true || step !== undefined;

/** Guests at once, at the most so many. */
export const DENSITY = [1, 2, 4, 8] as const;
export type Density = (typeof DENSITY)[number];

const guests = (count: number): string => (count === 1 ? "1 guest" : `${count} guests`);
const densityId = (what: "up" | "host", count: Density): string => `${what}-${count}`;

export const MEASURES: readonly Measure[] = [
  ...table("resources", [
    ["image", "stub domain's image: kernel and ramdisk", "MB", "less", "counted"],
    ["memory", "memory of the stub domain", "MiB", "less", "counted"],
    ["used", "least memory left free in the stub domain", "MiB", "more", { step: 1 }],
    ["dom0", "memory of all processes in dom0 that exist for the guest", "MiB", "less"],
  ]),
  ...table("idle", [
    ["stubdom", "CPU time of the stub domain", "ms/s", "less"],
    ["dom0", "CPU time of dom0, with its QEMU", "ms/s", "less"],
    ["all", "CPU time of both", "ms/s", "less"],
    ["wakes", "wake-ups of the stub domain, by Xen", "1/s", "less"],
    ["wakes-all", "wake-ups of the stub domain and of dom0, by Xen", "1/s", "less"],
    ["switches", "wake-ups of dom0's processes and threads for the guest", "1/s", "less"],
  ]),
  ...table("start", [
    ["create", "xl create, to its return", "s", "less"],
    ["init", "stub domain: its kernel to process 1", "s", "less"],
    ["devices", "stub domain: its kernel to its last device", "s", "less"],
    ["qemu", "stub domain: its kernel to QEMU's start", "s", "less"],
    ["agent", "stub domain: its kernel to `running`", "s", "less"],
    ["own", "process 1's own time until QEMU's start, less waiting for devices", "ms", "less"],
    ["serial", "xl create to the guest's first word on the serial port", "s", "less"],
    ["up", "xl create to the guest's first program", "s", "less"],
  ]),
  ...table("density", [
    ...DENSITY.flatMap((count) => [
      [densityId("up", count), `${guests(count)}: until all are up`, "s", "less"] as const,
      [
        densityId("host", count),
        `${guests(count)}: memory of Xen and of dom0's processes`,
        "MiB",
        "less",
      ] as const,
    ]),
    ["time", "each further guest: time until all are up", "s", "less"],
    ["memory", "each further guest: memory of Xen and of dom0's processes", "MiB", "less"],
  ]),
  ...table("access", [
    ["port", "read of an I/O port (keyboard's status), median", "µs", "less", "counted"],
    ["mmio", "read of a device register (NIC's status), median", "µs", "less", "counted"],
    ["cpu", "CPU loop alone, a round, median", "ns", "less", "counted"],
    ["beside", "CPU loop beside one that reads a port, a round", "ns", "less"],
  ]),
  ...table("disk", [
    ["cold-seq", "first read in order, 64 KiB", "MB/s", "more"],
    ["seq-write", "write in order, 64 KiB", "MB/s", "more"],
    ["seq-read", "the same read again, 64 KiB", "MB/s", "more"],
    ["cold-read", "first read anywhere, 4 KiB", "1/s", "more"],
    ["random-read", "read again anywhere, 4 KiB", "1/s", "more"],
    ["random-write", "write anywhere, 4 KiB", "1/s", "more"],
    ["flush-write", "write anywhere, 4 KiB, each flushed", "1/s", "more"],
    ["flush-seq", "write in order, 64 KiB, each flushed", "MB/s", "more"],
    ["cold-p50", "first read anywhere, 4 KiB: median", "µs", "less", "counted"],
    ["read-p50", "read again anywhere, 4 KiB: median", "µs", "less", "counted"],
    ["write-p50", "write anywhere, 4 KiB: median", "µs", "less", "counted"],
    // Not counted: it waits for the disk of the emulated host, which answers in real time.
    ["flush-p50", "write anywhere, 4 KiB, flushed: median", "µs", "less"],
    ["cold-p99", "first read anywhere, 4 KiB: 99 of 100 take at most", "µs", "less"],
    ["read-p99", "read again anywhere, 4 KiB: 99 of 100 take at most", "µs", "less"],
    ["write-p99", "write anywhere, 4 KiB: 99 of 100 take at most", "µs", "less"],
    ["flush-p99", "write anywhere, 4 KiB, flushed: 99 of 100 take at most", "µs", "less"],
  ]),
  ...table("network", [
    ["tcp-out", "TCP from the guest", "MB/s", "more"],
    ["tcp-in", "TCP to the guest", "MB/s", "more"],
    ["udp", "UDP packets of 64 bytes that arrive in dom0", "1/s", "more"],
    ["echo-p50", "round trip of a UDP packet, median", "µs", "less", "counted"],
    ["echo-p90", "round trip of a UDP packet: 9 of 10 take at most", "µs", "less"],
    ["echo-p99", "round trip of a UDP packet: 99 of 100 take at most", "µs", "less"],
    ["echo-lost", "UDP packets that nothing came back for", "%", "less"],
  ]),
  ...table("screen", [
    ["change", "key to the last pixel of a whole new screen", "ms", "less"],
    ["rate", "whole screens a second, while the guest draws all the time", "1/s", "more"],
    ["updates", "updates a second, of whatever size", "1/s", "more"],
    ["update", "an update, as the viewer gets it", "KB", "less"],
  ]),
  ...table("save", [
    ["save", "xl save, 64 MiB guest", "s", "less"],
    ["restore", "xl restore, to its return", "s", "less"],
    ["console-save", "xl save, device state over the console", "s", "less"],
    ["console-restore", "xl restore, device state over the console", "s", "less"],
    ["disk-rate", "32 MiB of made-up device state, by a state disk into dom0's file", "MB/s", "more"],
    ["console-rate", "32 MiB of made-up device state, over the console", "MB/s", "more"],
  ]),
];

export function measure(id: string): Measure {
  const found = MEASURES.find((each) => each.id === id);
  if (found === undefined) throw new RangeError(`no measure ${id}`);
  return found;
}
