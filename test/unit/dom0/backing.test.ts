import { expect, test } from "vitest";
import { BackingPool } from "../../../agent/dom0/backing.ts";
import { defaultSettings } from "../../../agent/dom0/settings.ts";
import { fakePlatform } from "../../fakes/platform.ts";

const size = (5 << 20) / 2;

/** A host with one block device, full of what somebody left. */
function hostWith(device: Uint8Array, fails = false) {
  const opened = new Set<number>();
  const platform = fakePlatform({
    descriptors: {
      open: () => {
        opened.add(7);
        return 7;
      },
      size: () => device.length,
      close: (fd) => void opened.delete(fd),
    },
    storage: {
      deviceNumber: () => ({ major: 253, minor: 0 }),
      buffer: (bytes) => new Uint8Array(bytes),
      writeAt: async (_fd, from, offset) => {
        if (fails) throw new Error("EIO");
        device.set(from, offset);
      },
    },
  });
  return { pool: new BackingPool(platform, { ...defaultSettings, devices: ["/dev/vg/state"] }), opened };
}

test("a block device that another stub domain has used begins empty, from end to end", async () => {
  const device = new Uint8Array(size).fill(0xa5);
  const { pool, opened } = hostWith(device);
  const backing = await pool.make(1 << 20);
  expect(device.every((byte) => byte === 0)).toBe(true);
  await expect(pool.make(1 << 20)).rejects.toThrow("every block device for state is in use");
  backing.close();
  expect(opened.size).toBe(0);
  (await pool.make(1 << 20)).close();
});

test("one that cannot be cleared, or is too small, is not used, and free again", async () => {
  const { pool, opened } = hostWith(new Uint8Array(size), true);
  await expect(pool.make(1 << 20)).rejects.toThrow("EIO");
  await expect(pool.make(4 << 20)).rejects.toThrow("/dev/vg/state has 2621440 bytes, 4194304 are needed");
  expect(opened.size).toBe(0);
});

test("what is about to be written elsewhere is not promised twice", () => {
  const platform = fakePlatform({ storage: { freeSpace: () => 1000 } });
  const pool = new BackingPool(platform, { ...defaultSettings, keepFree: 100 });
  const first = pool.reserve("/var/lib/xen", 600);
  expect(() => pool.reserve("/var/lib/xen", 301)).toThrow("/var/lib/xen has 300 bytes left for 301");
  const second = pool.reserve("/var/lib/xen", 300);
  first();
  pool.reserve("/var/lib/xen", 600)();
  second();
});

/** A host with `free` bytes for nameless files, of which none takes room before it is written to. */
function hostWithFiles(free: number) {
  const sizes = new Map<number, number>();
  let next = 10;
  const platform = fakePlatform({
    descriptors: { close: (fd) => void sizes.delete(fd), size: (fd) => sizes.get(fd) ?? 0 },
    storage: {
      freeSpace: () => free,
      openTemporary: () => next++,
      truncate: (fd, bytes) => void sizes.set(fd, bytes),
      attachLoop: () => ({ fd: next++, major: 7, minor: 0 }),
      resizeLoop: () => {},
    },
  });
  return new BackingPool(platform, defaultSettings);
}

const mebibyte = 1 << 20;

test("a file has room to spare where there is some, and no more than there is", async () => {
  expect((await hostWithFiles(300 * mebibyte).make(mebibyte)).size).toBe(16 * mebibyte);
  expect((await hostWithFiles(300 * mebibyte).make(20 * mebibyte)).size).toBe(40 * mebibyte);
  // 64 MiB stay free.
  expect((await hostWithFiles(79 * mebibyte).make(mebibyte)).size).toBe(15 * mebibyte);
  expect((await hostWithFiles(65 * mebibyte).make(mebibyte)).size).toBe(mebibyte);
  await expect(hostWithFiles(65 * mebibyte).make(mebibyte + 1)).rejects.toThrow("has 1048576 left for state");
});

test("what is to spare keeps nobody out who comes at the same time", async () => {
  const pool = hostWithFiles(300 * mebibyte);
  const backings = await Promise.all(Array.from({ length: 8 }, () => pool.make(mebibyte)));
  expect(backings.map(({ size }) => size)).toEqual(Array(8).fill(16 * mebibyte));
});
