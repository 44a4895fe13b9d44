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
