import { decodeText } from "../bytes/text.ts";
import type { FileSystem, Platform } from "../platform/port.ts";

interface Setting {
  readonly path: string;
  readonly value: string;
  readonly why: string;
}

/** What the kernel must be told before QEMU runs. */
export const settings: readonly Setting[] = [
  {
    path: "/proc/sys/vm/overcommit_memory",
    value: "1",
    why: "QEMU's map cache reserves 384 MiB of address space and aborts when refused",
  },
  {
    path: "/proc/sys/vm/swappiness",
    value: "0",
    why: "there is no swap; reclaim should drop page cache alone",
  },
  {
    path: "/proc/sys/vm/dirty_bytes",
    value: "4194304",
    why: "what the guest writes without a flush must not fill the stub domain's memory",
  },
  ...["bset", "inheritable"].map((set) => ({
    path: `/proc/sys/kernel/usermodehelper/${set}`,
    value: "0 0",
    why: "what Linux executes by itself, /sbin/poweroff, is a file that QEMU can write to, and would be root with all capabilities",
  })),
  {
    path: "/proc/sys/kernel/printk",
    value: "3 4 1 3",
    why: "console 0 carries the agent's log, kernel messages below errors only crowd it",
  },
];

/** The same, when there is a screen to be shown. */
export const screenSettings: readonly Setting[] = [
  {
    path: "/proc/sys/net/core/wmem_default",
    value: "4194304",
    why: "a socket that takes a whole screen at once: for each piece that it takes, QEMU moves the rest forward",
  },
];

/** Applies every setting; returns what the kernel refused, as lines for the log. */
export function applySettings(files: FileSystem, all = settings): string[] {
  const refused: string[] = [];
  for (const { path, value, why } of all) {
    try {
      files.writeFile(path, value);
    } catch (error) {
      refused.push(`${path} not set to ${value}: ${String(error)}; ${why}`);
    }
  }
  return refused;
}

/** The kernel's threads are its first processes; no more than these are looked at. */
const mostThreads = 64;

/**
 * Has the kernel's console thread wait until QEMU waits. Each write to a console wakes that thread, although all of it
 * has gone to dom0 by then, and QEMU writes a serial port's bytes one by one: otherwise there are two switches between
 * processes, and a look at every console, for each. What comes from dom0 wakes QEMU without it, but for what
 * does not fit at once.
 *
 * @returns what went wrong, for the log: consoles work all the same
 */
export function calmConsoles({
  files,
  processes,
}: Pick<Platform, "files" | "processes">): string | undefined {
  try {
    for (let pid = 2; pid < mostThreads; pid++) {
      if (nameOf(files, pid) !== "khvcd") continue;
      processes.yieldWakeUps(pid);
      return undefined;
    }
    return "the kernel has no thread khvcd; serial ports are slower than they could be";
  } catch (error) {
    return `khvcd keeps interrupting QEMU: ${String(error)}; serial ports are slower than they could be`;
  }
}

function nameOf(files: FileSystem, pid: number): string | undefined {
  try {
    return decodeText(files.readFile(`/proc/${pid}/comm`, 64)).trimEnd();
  } catch {
    return undefined; // there is no such process
  }
}
