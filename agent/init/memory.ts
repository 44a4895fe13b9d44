import { decodeText } from "../bytes/text.ts";
import type { FileSystem } from "../platform/port.ts";

export interface MemoryUse {
  /** KiB that the stub domain's kernel manages. */
  readonly total: number;
  /** KiB that could still be given to a process. */
  readonly available: number;
}

/** From /proc/meminfo (proc(5)). */
export function readMemory(files: FileSystem): MemoryUse {
  const text = decodeText(files.readFile("/proc/meminfo", 8192));
  const field = (name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, "m").exec(text)?.[1] ?? Number.NaN);
  return { total: field("MemTotal"), available: field("MemAvailable") };
}

/** Peak resident set of a process in KiB, or undefined once it is gone. */
export function peakResident(files: FileSystem, pid: number): number | undefined {
  try {
    const text = decodeText(files.readFile(`/proc/${pid}/status`, 8192));
    const match = /^VmHWM:\s+(\d+) kB/m.exec(text);
    return match ? Number(match[1]) : undefined;
  } catch {
    return undefined;
  }
}

/**
 * The least memory that was available, looked at when something happens rather than on a clock, so that an
 * idle stub domain stays idle.
 */
export class MemoryWatch {
  #least = Number.POSITIVE_INFINITY;
  #told = Number.POSITIVE_INFINITY;

  constructor(
    private readonly files: FileSystem,
    /** Called with each low-water mark that is worth a line: the first, and 1 MiB below the last told. */
    private readonly lower: (use: MemoryUse, least: number) => void,
  ) {}

  look(): MemoryUse & { readonly least: number } {
    const use = readMemory(this.files);
    this.#least = Math.min(this.#least, use.available);
    if (this.#least <= this.#told - 1024) {
      this.#told = this.#least;
      this.lower(use, this.#least);
    }
    return { ...use, least: this.#least };
  }
}
