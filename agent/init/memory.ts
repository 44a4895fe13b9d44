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
