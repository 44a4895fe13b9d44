/**
 * QEMU's BLOCK_IO_ERROR in the log: a disk error is never silent, and a disk that fails for hours does not
 * fill the log. The guest has its error from QEMU in any case.
 */
import type { Logger } from "../log/logger.ts";
import type { Clock, Timer } from "../platform/port.ts";
import type { JsonObject } from "../qmp/json.ts";

/** After the first error of a kind, the next of its kind are counted for so long, in milliseconds. */
const burst = 10_000;
/** Kinds that are told apart at a time: reads and writes of all the disks that there can be. */
const mostKinds = 64;
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
  count: number;
  timer: Timer;
}

export class DiskErrors {
  readonly #bursts = new Map<string, Burst>();

  constructor(
    private readonly context: {
      readonly clock: Clock;
      readonly log: Logger;
      /** A drive's name for people, by QEMU's. */
      nameOf(device: string): string;
      /** Gets the first error of a burst: thing, value, remedy. */
      complain(text: string): void;
    },
  ) {}

  happened(data: JsonObject): void {
    const error = readDiskError(data);
    const kind = `${error.device} ${error.operation}`;
    const under = this.#bursts.get(kind);
    if (under !== undefined) {
      under.count++;
      return;
    }
    // A QEMU that makes up names all the time gets no line for each.
    if (this.#bursts.size >= mostKinds) return;
    this.#bursts.set(kind, { count: 0, timer: this.#schedule(kind, error) });
    this.context.complain(this.#describe(error));
  }

  /** Idempotent. */
  stop(): void {
    for (const { timer } of this.#bursts.values()) timer.cancel();
    this.#bursts.clear();
  }

  #schedule(kind: string, error: DiskError): Timer {
    return this.context.clock.setTimer(burst, () => this.#summarize(kind, error));
  }

  /** A burst goes on for as long as each span of it holds an error. */
  #summarize(kind: string, error: DiskError): void {
    const under = this.#bursts.get(kind);
    if (under === undefined) return;
    const { count } = under;
    if (count === 0) {
      this.#bursts.delete(kind);
      return;
    }
    under.count = 0;
    under.timer = this.#schedule(kind, error);
    this.context.log.error(
      { device: error.device, count },
      `${this.context.nameOf(error.device)}: ${count} more ${error.operation} errors in ${burst / 1000} s`,
    );
  }

  #describe({ device, operation, stops, reason }: DiskError): string {
    const outcome = stops
      ? "QEMU holds the guest; go on with `xl qemu-monitor-command GUEST cont` once dom0 has what was missing"
      : "the guest was told; see dom0's kernel log, and whether the image's file system is full";
    return `${this.context.nameOf(device)}: a ${operation} failed: ${reason}; ${outcome}`;
  }
}
