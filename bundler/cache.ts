/**
 * What is slow to make is kept by a hash of what it is made from, outside of the checkout.
 *
 * An entry is a directory that appears whole (made beside, then renamed) and never changes after. Two builds
 * that want the same entry at once are kept apart by flock(1) on a file next to it, which the kernel releases
 * if its holder dies; what a dead builder left half-made is removed by the next one.
 */

import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync, utimesSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { removeTrees } from "./exec.ts";
import { progress } from "./progress.ts";

/** Entries that no build has asked for in this time are removed. */
const KEEP_DAYS = 30;
const KEEP_NEWEST = 6;
/** Waiting for another build is worth a line only when it lasts. */
const QUIET_WAIT_MS = 1000;

/** The cache directory: `$XDG_CACHE_HOME/linux-stubdom`, `$XDG_CACHE_HOME` being `~/.cache` by default. */
export function cacheDir(): string {
  // Absolute: not everything that is told a file of it runs where we do.
  const base = resolve(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"));
  if (/[\s,]/.test(base)) {
    throw new Error(
      `the cache's directory ${base} has a space or comma in its name, which QEMU takes for the end of a file's: set XDG_CACHE_HOME to another one`,
    );
  }
  return join(base, "linux-stubdom");
}

/** Where the log of a step that makes no cache entry goes; the next run of the step overwrites it. */
export function logFile(step: string): string {
  const dir = join(cacheDir(), "log");
  mkdirSync(dir, { recursive: true });
  const file = join(dir, `${step}.log`);
  rmSync(file, { force: true });
  return file;
}

/** sha256, in hex, of named inputs; neither their order nor where one ends and the next begins is lost. */
export function digest(inputs: Readonly<Record<string, string | Uint8Array>>): string {
  const hash = createHash("sha256");
  for (const [name, value] of Object.entries(inputs)) {
    const bytes = Buffer.from(value);
    hash.update(`${name}\0${bytes.length}\0`).update(bytes);
  }
  return hash.digest("hex");
}

function touch(path: string): void {
  const now = new Date();
  utimesSync(path, now, now);
}

/** Runs `work` while holding an exclusive lock on `file`, across processes. */
export async function withLock<T>(file: string, work: () => Promise<T>): Promise<T> {
  // `cat` inherits the locked descriptor and ends at our end of the pipe, so also when this process is killed.
  const holder = spawn("flock", ["--exclusive", file, "sh", "-c", "echo locked; exec cat"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const ended = new Promise<void>((resolve) => holder.once("close", () => resolve()));
  const slow = setTimeout(() => progress.note(`waiting for another build (${file})`), QUIET_WAIT_MS);
  try {
    await new Promise<void>((resolve, reject) => {
      holder.stdout.once("data", () => resolve());
      holder.once("error", (error) => reject(new Error(`flock: ${error.message}; it is part of util-linux`)));
      holder.once("close", (code) => reject(new Error(`flock ${file}: exit status ${code}`)));
    });
    clearTimeout(slow);
    // Used now, however long ago it was made.
    touch(file);
    return await work();
  } finally {
    clearTimeout(slow);
    holder.stdin.end();
    await ended;
  }
}

/** Whether it is there, and was last used before a time in milliseconds since the epoch. */
function unusedSince(path: string, since: number): boolean {
  const stat = statSync(path, { throwIfNoEntry: false });
  return stat !== undefined && stat.mtimeMs < since;
}

/**
 * Removes an entry, unless it was used since: while nobody can make it, and in one step for those who look for it.
 *
 * @param since milliseconds since the epoch
 */
export async function removeEntry(entry: string, since: number): Promise<void> {
  await withLock(`${entry}.lock`, async () => {
    if (!unusedSince(entry, since)) return;
    const going = `${entry}.tmp`;
    await removeTrees(going);
    renameSync(entry, going);
    await removeTrees(going);
  });
}

/**
 * Removes what was not used for {@link KEEP_DAYS}, or for a day when {@link KEEP_NEWEST} entries of the same
 * name are newer: each change of the agent makes an entry. Locks, logs and left-overs go the same way.
 */
async function prune(dir: string): Promise<void> {
  const newestFirst = readdirSync(dir)
    .flatMap((name) => {
      const [, entry, suffix = ""] = /^(.+)-[0-9a-f]{16}(\.lock|\.log|\.tmp)?$/.exec(name) ?? [];
      const path = join(dir, name);
      // Another build may have taken it away since.
      const stat = statSync(path, { throwIfNoEntry: false });
      return entry === undefined || stat === undefined
        ? []
        : [{ group: entry + suffix, path, whole: suffix === "", used: stat.mtimeMs }];
    })
    .sort((a, b) => b.used - a.used);
  const seen = new Map<string, number>();
  for (const { group, path, whole, used } of newestFirst) {
    const newer = seen.get(group) ?? 0;
    seen.set(group, newer + 1);
    const since = Date.now() - (newer < KEEP_NEWEST ? KEEP_DAYS : 1) * 86_400_000;
    if (used >= since) continue;
    if (whole) await removeEntry(path, since);
    else if (unusedSince(path, since)) rmSync(path, { recursive: true, force: true });
  }
}

/**
 * The directory of the entry `name` made from inputs that hash to `key`; `make` fills the directory it is
 * given when there is none yet. `log` is the entry's own log file, kept beside it, empty at the start.
 */
export async function cached(
  name: string,
  key: string,
  make: (dir: string, log: string) => Promise<void>,
): Promise<string> {
  const dir = cacheDir();
  mkdirSync(dir, { recursive: true });
  const entry = join(dir, `${name}-${key.slice(0, 16)}`);
  const found = (): boolean => {
    if (!existsSync(entry)) return false;
    touch(entry);
    return true;
  };
  if (found()) return entry;
  await withLock(`${entry}.lock`, async () => {
    if (found()) return;
    const unfinished = `${entry}.tmp`;
    await removeTrees(unfinished);
    mkdirSync(unfinished);
    const log = `${entry}.log`;
    rmSync(log, { force: true });
    await make(unfinished, log);
    renameSync(unfinished, entry);
    touch(entry);
  });
  await prune(dir);
  return entry;
}
