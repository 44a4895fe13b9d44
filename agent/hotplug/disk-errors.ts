/**
 * QEMU's BLOCK_IO_ERROR in the log: a disk error is never silent, and a disk that fails for hours does not
 * fill the log. The guest has its error from QEMU in any case.
 */
import { printable } from "../log/format.ts";
import type { Logger } from "../log/logger.ts";
import type { Clock, Timer } from "../platform/port.ts";
import type { JsonObject } from "../qmp/json.ts";

/** After the first error of a kind, the next of its kind are counted for so long, in milliseconds. */
const burst = 10_000;
/** Of each text of QEMU's. */
const longestText = 100;

/**
 * One error, as far as QEMU (qapi/block-core.json, BLOCK_IO_ERROR) is believed. What has another type is left
 * out.
 */
export interface DiskError {
  /** QEMU's name of the drive: `ide0-hd0`, `ahcidisk-0`, `scsi0-hd1`, `ide-5632`; empty when it has none. */
  readonly device: string;
  readonly operation: "read" | "write" | "request";
  /** What QEMU does about it: `stop` holds the whole guest. */
  readonly stops: boolean;
  /** For people: `Input/output error`. */
  readonly reason: string;
}

/** Pure. */
export function readDiskError(data: JsonObject): DiskError {
  const text = (value: unknown) => (typeof value === "string" ? value.slice(0, longestText) : "");
  // Without a name of its own a drive is known by its device: `/machine/peripheral/ide-5632`.
  const device = text(data.device) || text(data["qom-path"]).replace(/^.*\//, "");
  const { operation } = data;
  return {
    device,
    operation: operation === "read" || operation === "write" ? operation : "request",
    stops: data.action === "stop",
    reason: text(data.reason) || "unknown reason",
  };
}

interface Burst {
  /** Of the error that was told. */
  readonly device: string;
  readonly operation: DiskError["operation"];
  /** The drive's, for people. */
  name: string;
  count: number;
  timer: Timer;
}

export class DiskErrors {
  readonly #bursts = new Map<string, Burst>();

  constructor(
    private readonly context: {
      readonly clock: Clock;
      readonly log: Logger;
      /** A drive's name for people, by QEMU's; `undefined` where no such drive is known. */
      nameOf(device: string): string | undefined;
      /** Gets the first error of a burst: thing, value, remedy. */
      complain(text: string): void;
    },
  ) {}

  happened(data: JsonObject): void {
    const error = readDiskError(data);
    const { device, operation } = error;
    const known = this.context.nameOf(device);
    // Drives that are not known are one: a QEMU that makes up names all the time gets no line for each.
    const kind = known === undefined ? operation : `${operation} ${device}`;
    const under = this.#bursts.get(kind);
    if (under !== undefined) {
      under.count++;
      if (device !== under.device) under.name = "QEMU's drives of unknown names";
      return;
    }
    const name = known ?? `QEMU's drive ${printable(device) || "without a name"}`;
    this.#bursts.set(kind, { device, operation, name, count: 0, timer: this.#schedule(kind) });
    this.context.complain(describe(name, error));
  }

  /** Idempotent. */
  stop(): void {
    for (const { timer } of this.#bursts.values()) timer.cancel();
    this.#bursts.clear();
  }

  #schedule(kind: string): Timer {
    return this.context.clock.setTimer(burst, () => this.#summarize(kind));
  }

  /** A burst goes on for as long as each span of it holds an error. */
  #summarize(kind: string): void {
    const under = this.#bursts.get(kind);
    if (under === undefined) return;
    const { device, operation, name, count } = under;
    if (count === 0) {
      this.#bursts.delete(kind);
      return;
    }
    under.count = 0;
    under.timer = this.#schedule(kind);
    // Of what happens within a second QEMU tells the last alone (`monitor_qapi_event_conf`, monitor/monitor.c).
    this.context.log.error(
      { device, count },
      `${name}: QEMU told of ${count} more ${operation} errors in ${burst / 1000} s, and tells of one a second for each disk at most`,
    );
  }
}

function describe(name: string, { operation, stops, reason }: DiskError): string {
  const outcome = stops
    ? "QEMU holds the guest; go on with `xl qemu-monitor-command GUEST cont` once dom0 has what was missing"
    : "the guest was told; see dom0's kernel log, and whether the image's file system is full";
  // To QEMU a flush is a write, and one that failed makes it fail each later one of the disk (block/file-posix.c).
  const anew =
    operation === "write" && !stops
      ? "; start the guest anew once the disk is well, for QEMU may fail every flush of it until then"
      : "";
  return `${name}: a ${operation} failed: ${reason}; ${outcome}${anew}`;
}
