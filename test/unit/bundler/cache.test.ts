import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { cacheDir, cached, digest, removeEntry, withLock } from "../../../bundler/cache.ts";

let base: string;
const before = process.env.XDG_CACHE_HOME;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), "cache-test-"));
  process.env.XDG_CACHE_HOME = base;
});

afterEach(() => {
  rmSync(base, { recursive: true });
  if (before === undefined) delete process.env.XDG_CACHE_HOME;
  else process.env.XDG_CACHE_HOME = before;
});

const key = digest({ input: "1" });

test("a key depends on every name and on where values end", () => {
  const keys = [{ a: "bc" }, { ab: "c" }, { a: "b", c: "" }, { a: "b" }].map((inputs) => digest(inputs));
  expect(new Set(keys).size).toBe(keys.length);
  expect(digest({ a: "é" })).toBe(digest({ a: Buffer.from("é") }));
});

test("an entry is made once", async () => {
  let made = 0;
  const make = async (dir: string): Promise<void> => {
    made += 1;
    writeFileSync(join(dir, "file"), "x");
  };
  const entry = await cached("thing", key, make);
  expect(await cached("thing", key, make)).toBe(entry);
  expect([made, existsSync(join(entry, "file"))]).toEqual([1, true]);
});

test("builders side by side make an entry once", async () => {
  let made = 0;
  const make = async (): Promise<void> => {
    made += 1;
    await new Promise((resolve) => setTimeout(resolve, 50));
  };
  await Promise.all([1, 2, 3].map(() => cached("thing", key, make)));
  expect(made).toBe(1);
});

test("what a failed builder left is not an entry, and the next one starts from nothing", async () => {
  const fail = cached("thing", key, async (dir) => {
    writeFileSync(join(dir, "half"), "");
    throw new Error("no");
  });
  await expect(fail).rejects.toThrow("no");
  const entry = await cached("thing", key, async (dir) => expect(readdirSync(dir)).toEqual([]));
  expect(existsSync(entry)).toBe(true);
});

test("entries that nobody asked for in a month are removed, others stay", async () => {
  const [old, recent] = await Promise.all(
    ["2", "3"].map((input) => cached("thing", digest({ input }), async () => {})),
  );
  const month = Date.now() / 1000 - 31 * 86_400;
  utimesSync(old ?? "", month, month);
  const unrelated = join(cacheDir(), "log");
  writeFileSync(unrelated, "");
  utimesSync(unrelated, month, month);
  await cached("thing", key, async () => {});
  expect([old, recent, unrelated].map((path) => existsSync(path ?? ""))).toEqual([false, true, true]);
});

test("an entry that is removed is made anew, unless it was used since", async () => {
  let made = 0;
  const make = async (): Promise<void> => {
    made += 1;
  };
  const entry = await cached("thing", key, make);
  await removeEntry(entry, statSync(entry).mtimeMs);
  expect(existsSync(entry)).toBe(true);
  await removeEntry(entry, Date.now() + 1);
  expect(readdirSync(cacheDir()).filter((name) => name.startsWith("thing"))).toEqual([
    expect.stringMatching(/\.lock$/),
  ]);
  expect([await cached("thing", key, make), made]).toEqual([entry, 2]);
  await removeEntry(join(cacheDir(), "nothing"), Date.now());
});

test("an entry that is being made is removed when it is there", async () => {
  let removed: Promise<void> | undefined;
  const entry = await cached("thing", key, async (dir) => {
    removed = removeEntry(dir.replace(/\.tmp$/, ""), Date.now() + 60_000);
  });
  await removed;
  expect(existsSync(entry)).toBe(false);
});

test("whoever gets a lock has used its file", async () => {
  const file = join(base, "lock");
  writeFileSync(file, "");
  utimesSync(file, 1, 1);
  await withLock(file, async () => expect(statSync(file).mtimeMs).toBeGreaterThan(Date.now() - 10_000));
});

test("the cache's directory is absolute", () => {
  process.env.XDG_CACHE_HOME = "relative";
  expect(cacheDir()).toBe(resolve("relative/linux-stubdom"));
});

test("a lock is held by one at a time and released when the work fails", async () => {
  const file = join(base, "lock");
  const order: string[] = [];
  const first = withLock(file, async () => {
    order.push("first in");
    await new Promise((resolve) => setTimeout(resolve, 50));
    order.push("first out");
    throw new Error("failed");
  });
  await new Promise((resolve) => setTimeout(resolve, 20));
  const second = withLock(file, async () => order.push("second in"));
  await expect(first).rejects.toThrow("failed");
  await second;
  expect(order).toEqual(["first in", "first out", "second in"]);
});
