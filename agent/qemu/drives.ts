/** QEMU's drives by the names that its events have for them. Pure. */
import type { DmOption } from "./dm-argv.ts";
import { optionValue, splitOptions } from "./text.ts";

/**
 * QEMU's name of each `-drive` -> the file that it was started with, "" for an empty CD drive. A drive without
 * an id gets its name from its place: index n of `if=ide` is `ide<n / 2>-hd<n % 2>` (QEMU, blockdev.c).
 */
export function driveFiles(options: readonly DmOption[]): ReadonlyMap<string, string> {
  const drives = options.filter(({ name }) => name === "drive").map(({ value }) => splitOptions(value));
  return new Map(
    drives.flatMap((parts) => {
      const name = optionValue(parts, "id") ?? ideName(parts);
      return name === undefined ? [] : [[name, optionValue(parts, "file") ?? ""] as const];
    }),
  );
}

function ideName(parts: readonly string[]): string | undefined {
  const index = optionValue(parts, "index");
  if (optionValue(parts, "if") !== "ide" || index === undefined || !/^[0-9]$/.test(index)) return undefined;
  const medium = optionValue(parts, "media") === "cdrom" ? "cd" : "hd";
  return `ide${Math.floor(Number(index) / 2)}-${medium}${Number(index) % 2}`;
}
