import { type ExitStatus, SystemError } from "../platform/port.ts";

/**
 * Why QEMU could not be started, or did not last.
 *
 *     QemuError
 *     ├── ArgumentError      what libxl wrote in dm-argv cannot be turned into a command line
 *     ├── QemuNotStarted     the program could not be executed
 *     ├── QemuUnresponsive   it runs, but did not answer on QMP in time
 *     ├── QemuMonitorBroken  it runs, but what comes on the agent's monitor is not QMP, or nothing any more
 *     └── QemuEnded          it exited or was killed
 *
 * Each message names the thing, its value and what to do about it, for one line in the log.
 */
export class QemuError extends Error {
  override readonly name: string = "QemuError";
}

export class ArgumentError extends QemuError {
  override readonly name = "ArgumentError";
  constructor(
    /** Where it stands: `dm-argv/012`, or `dm-argv` for the whole. */
    readonly place: string,
    /** What was found there, shortened and printable. */
    readonly value: string,
    readonly problem: string,
    readonly remedy: string,
  ) {
    super(`${place}${value && ` ${value}`}: ${problem}; ${remedy}`);
  }
}

export class QemuNotStarted extends QemuError {
  override readonly name = "QemuNotStarted";
  constructor(
    readonly program: string,
    cause: unknown,
  ) {
    const code = cause instanceof SystemError ? cause.code : String(cause);
    const remedies: Record<string, string> = {
      E2BIG: "shorten device_model_args_hvm=",
      ENOMEM: "raise stubdomain_memory=",
    };
    const remedy = remedies[code] ?? "the ramdisk is incomplete or damaged, build it again";
    super(`${program} cannot be executed: ${code}; ${remedy}`);
  }
}

export class QemuUnresponsive extends QemuError {
  override readonly name = "QemuUnresponsive";
  constructor(
    readonly milliseconds: number,
    readonly lastLines: readonly string[],
  ) {
    super(
      `QEMU did not answer on QMP within ${milliseconds / 1000} s${quoted(lastLines)}; ` +
        "see its lines above, or raise stubdom.qemu_deadline",
    );
  }
}

export class QemuMonitorBroken extends QemuError {
  override readonly name = "QemuMonitorBroken";
  constructor(reason: Error, consequence: string) {
    super(`QEMU's monitor is broken: ${reason.message}; ${consequence}`);
  }
}

export class QemuEnded extends QemuError {
  override readonly name = "QemuEnded";
  constructor(
    readonly status: ExitStatus,
    /** From its start, in milliseconds. */
    readonly ranFor: number,
    /** The last lines that it wrote. */
    readonly lastLines: readonly string[],
    /** Whether {@link QemuSupervisor.stop} had been called. */
    readonly expected: boolean,
  ) {
    const remedy = status.code === 0 ? "" : `; ${remedyOf(status)}`;
    super(`QEMU ${howEnded(status)} after ${(ranFor / 1000).toFixed(1)} s${quoted(lastLines)}${remedy}`);
  }
}

function howEnded({ code, signal }: ExitStatus): string {
  return code === null ? `was killed by ${signal}` : `exited with ${code}`;
}

function remedyOf({ signal }: ExitStatus): string {
  switch (signal) {
    case null:
      return "its lines above say why; look at the guest's disk=, vif= and device_model_args_hvm=";
    case "SIGKILL":
    case "SIGBUS":
      return "memory has run out, or someone ended it; raise stubdomain_memory=";
    case "SIGSYS":
      return "its sandbox forbids what it tried; please report it, stubdom.sandbox=off shows whether that is all";
    default:
      return "a fault of QEMU's; please report it, with its lines above";
  }
}

/** Characters of one line, and of all: the remedy stands behind them, and must fit into xenstore's node and the log's line. */
const quotedOfLine = 160;
const quotedInAll = 480;

/** The last of these lines, as many as there is room for. */
function quoted(lines: readonly string[]): string {
  const kept: string[] = [];
  let room = quotedInAll;
  for (let n = lines.length - 1; n >= 0; n--) {
    const line = lines[n] ?? "";
    const text = line.length > quotedOfLine ? `${line.slice(0, quotedOfLine)}...` : line;
    room -= text.length;
    if (room < 0) break;
    kept.unshift(text);
  }
  return kept.length === 0 ? "" : ` (its last lines: ${kept.join(" | ")})`;
}
