import { decodeText } from "../bytes/text.ts";
import type { FileSystem } from "../platform/port.ts";

export interface MemoryUse {
  /** KiB that the stub domain's kernel manages. */
  readonly total: number;
  /** KiB that could still be given to a process. */
  readonly available: number;
}

/**
 * The KiB behind a name that begins a line of /proc/meminfo or /proc/PID/status (proc(5)); NaN without such a line. Every boot
 * passes here, and would have a regular expression compiled.
 */
function kibibytes(text: string, name: string): number {
  const lines = `\n${text}`;
  const start = lines.indexOf(`\n${name}:`);
  if (start < 0) return Number.NaN;
  return Number.parseInt(lines.slice(start + name.length + 2, lines.indexOf(" kB", start)), 10);
}

/** From /proc/meminfo. */
export function readMemory(files: FileSystem): MemoryUse {
  const text = decodeText(files.readFile("/proc/meminfo", 8192));
  return { total: kibibytes(text, "MemTotal"), available: kibibytes(text, "MemAvailable") };
}

/** Peak resident set of a process in KiB, or undefined once it is gone. */
export function peakResident(files: FileSystem, pid: number): number | undefined {
  try {
    const text = decodeText(files.readFile(`/proc/${pid}/status`, 8192));
    const peak = kibibytes(text, "VmHWM");
    return Number.isNaN(peak) ? undefined : peak;
  } catch {
    return undefined;
  }
}

/**
 * KiB that QEMU comes to need for each GiB of the guest's memory: page tables, since it maps 1 MiB where an emulated NIC or SCSI
 * disk reaches, and keeps that (QEMU 10, hw/xen/xen-mapcache.c; 2.2 MiB were seen).
 */
const perGuestGibibyte = 2500;
/** MiB of the guest that QEMU keeps mapped at the most. */
const mostMapped = 32 * 1024;
/** KiB that are to be left then; for a screen, of which QEMU holds up to two copies at 1920x1080, more. */
const reserve = { always: 4 << 10, screen: 16 << 10 };

/**
 * What to say about a guest whose memory is so large that QEMU may not have enough in the end; `undefined` if it has.
 *
 * @param guest MiB of the guest, NaN where nobody knows
 */
export function memoryAdvice(
  guest: number,
  { available }: Pick<MemoryUse, "available">,
  screen = false,
): string | undefined {
  const needed = (Math.min(guest, mostMapped) / 1024) * perGuestGibibyte;
  const missing = needed + reserve.always + (screen ? reserve.screen : 0) - available;
  if (!(missing > 0)) return undefined;
  const mebibytes = (kibibytes: number) => Math.ceil(kibibytes / 1024);
  return `a guest of ${guest} MiB: QEMU comes to need up to ${mebibytes(needed)} MiB to map what its emulated devices reach, and ${mebibytes(available)} are free; raise stubdomain_memory= by ${mebibytes(missing)}`;
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
