import { expect, test } from "vitest";
import { BackingPool } from "../../../agent/dom0/backing.ts";
import { defaultSettings } from "../../../agent/dom0/settings.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { type FakePieces, fakePlatform } from "../../fakes/platform.ts";

const size = (5 << 20) / 2;
const mebibyte = 1 << 20;

interface FakeDevice {
  readonly bytes: Uint8Array;
  /** What becomes of opening it, and of writing to it. */
  readonly mounted?: boolean;
  readonly broken?: boolean;
}

/** A host with block devices, full of what somebody left. */
function hostWith(devices: Readonly<Record<string, FakeDevice>>, limit = defaultSettings.limit) {
  const opened = new Map<number, FakeDevice>();
  const told: string[] = [];
  let next = 7;
  const device = (fd: number) => opened.get(fd) ?? { bytes: new Uint8Array(0) };
  const platform = fakePlatform({
    descriptors: {
      open: (path) => {
        const found = devices[path];
        if (found === undefined) throw new SystemError("ENOENT", "open", path);
        if (found.mounted) throw new SystemError("EBUSY", "open", path);
        opened.set(next, found);
        return next++;
      },
      size: (fd) => device(fd).bytes.length,
      close: (fd) => void opened.delete(fd),
    },
    storage: {
      deviceNumber: (fd) => ({ major: 253, minor: Object.values(devices).indexOf(device(fd)) }),
      buffer: (bytes) => new Uint8Array(bytes),
      writeAt: async (fd, from, offset) => {
        if (device(fd).broken) throw new SystemError("EIO", "write", String(fd));
        device(fd).bytes.set(from, offset);
      },
    },
  });
  const log = { warn: (_: object, text: string) => void told.push(text) };
  const settings = { ...defaultSettings, limit, devices: Object.keys(devices) };
  return { pool: new BackingPool(platform, settings, log), opened, told };
}

const used = (bytes: number) => new Uint8Array(bytes).fill(0xa5);

test("a block device that another stub domain has used begins empty, from end to end", async () => {
  const bytes = used(size);
  const { pool, opened } = hostWith({ "/dev/vg/state": { bytes } });
  const backing = await pool.make(mebibyte);
  expect(bytes.every((byte) => byte === 0)).toBe(true);
  await expect(pool.make(mebibyte)).rejects.toThrow(
    "every block device for state is in use; name one more --device",
  );
  backing.close();
  expect(opened.size).toBe(0);
  (await pool.make(mebibyte)).close();
});

test("one that cannot be cleared, or is too small, is not used, and free again", async () => {
  const { pool, opened } = hostWith({ "/dev/vg/state": { bytes: used(size), broken: true } });
  await expect(pool.make(mebibyte)).rejects.toThrow("cannot write byte 0 of the state disk: EIO");
  await expect(pool.make(4 * mebibyte)).rejects.toThrow(
    "/dev/vg/state has 2621440 bytes, 4194304 are needed; name a larger --device",
  );
  expect(opened.size).toBe(0);
});

test("a device that is of no use is passed over, and told of once; the last one's fault counts", async () => {
  const { pool, told } = hostWith({
    "/dev/mounted": { bytes: used(size), mounted: true },
    "/dev/broken": { bytes: used(size), broken: true },
    "/dev/small": { bytes: used(mebibyte) },
    "/dev/good": { bytes: used(size) },
  });
  const backing = await pool.make(2 * mebibyte);
  expect(backing.minor).toBe(3);
  expect(() => backing.grow(3 * mebibyte)).toThrow("/dev/good has 2621440; name a larger --device");
  await expect(pool.make(2 * mebibyte)).rejects.toThrow("/dev/small has 1048576 bytes, 2097152 are needed");
  expect(told).toEqual([
    expect.stringMatching(/^\/dev\/mounted is passed over for state disks: open \/dev\/mounted: EBUSY; see/),
    expect.stringMatching(/^\/dev\/broken is passed over for state disks: cannot write byte 0 .*EIO/),
  ]);
  backing.close();
});

test("two that ask at once get a device each", async () => {
  const { pool } = hostWith({ "/dev/a": { bytes: used(size) }, "/dev/b": { bytes: used(size) } });
  const backings = await Promise.all([pool.make(mebibyte), pool.make(mebibyte)]);
  expect(backings.map(({ minor }) => minor)).toEqual([0, 1]);
});

test("a device larger than any state may be is told of before anybody needs it, since all of it is zeroed", () => {
  const { pool, told, opened } = hostWith({ "/dev/vg/large": { bytes: used(size) } }, mebibyte);
  pool.check();
  expect(told).toEqual([
    "/dev/vg/large has 2621440 bytes, all of which are zeroed each time: no state takes more than 1048576 (--limit), and a smaller device saves the time",
  ]);
  expect(opened.size).toBe(0);
});

test("one that is missing, or in use, at the start is told of, and keeps nobody from starting", () => {
  const { pool, told, opened } = hostWith({ "/dev/a": { bytes: used(size), mounted: true } });
  pool.check();
  expect(told).toEqual([expect.stringMatching(/^\/dev\/a is passed over for state disks: .*EBUSY/)]);
  expect(opened.size).toBe(0);
});

test("what is about to be written elsewhere is not promised twice", () => {
  const platform = fakePlatform({ storage: { freeSpace: () => 1000 } });
  const pool = new BackingPool(platform, { ...defaultSettings, keepFree: 100 }, silentLogger);
  const first = pool.reserve("/var/lib/xen", 600);
  expect(() => pool.reserve("/var/lib/xen", 301)).toThrow(
    "/var/lib/xen has 300 bytes left for 301; make room there, or lower the helper's --keep-free",
  );
  const second = pool.reserve("/var/lib/xen", 300);
  first();
  pool.reserve("/var/lib/xen", 600)();
  second();
});

/** A host with `free` bytes for nameless files, of which none takes room before it is written to. */
function hostWithFiles(free: number, storage: FakePieces["storage"] = {}) {
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
      ...storage,
    },
  });
  return new BackingPool(platform, defaultSettings, silentLogger);
}

test("a dom0 without loop devices, or whose file system has no nameless files, is told of at the start, with what to do", async () => {
  const fails = (code: string, call: string) => () => {
    throw new SystemError(code, call, "9");
  };
  const without = hostWithFiles(300 * mebibyte, { attachLoop: fails("ENOENT", "loop device for") });
  const remedy =
    "loop device for 9: ENOENT; see that dom0 has loop devices (modprobe loop), or give the helper a --device";
  expect(() => without.check()).toThrow(remedy);
  await expect(without.make(mebibyte)).rejects.toThrow(remedy);
  const nfs = hostWithFiles(300 * mebibyte, { openTemporary: fails("EOPNOTSUPP", "open temporary file in") });
  expect(() => nfs.check()).toThrow(
    "open temporary file in 9: EOPNOTSUPP; name another --directory, or give the helper a --device",
  );
});

test("a file system that is full at the start keeps nobody from starting, and what was tried there goes", () => {
  const open = new Set<number>();
  const opened = (fd: number) => {
    open.add(fd);
    return fd;
  };
  const platform = fakePlatform({
    descriptors: { close: (fd) => void open.delete(fd) },
    storage: {
      freeSpace: () => 0,
      openTemporary: () => opened(10),
      attachLoop: () => ({ fd: opened(11), major: 7, minor: 0 }),
    },
  });
  new BackingPool(platform, defaultSettings, silentLogger).check();
  expect(open.size).toBe(0);
});

test("a file has room to spare where there is some, and no more than there is", async () => {
  expect((await hostWithFiles(300 * mebibyte).make(mebibyte)).size).toBe(16 * mebibyte);
  expect((await hostWithFiles(300 * mebibyte).make(20 * mebibyte)).size).toBe(40 * mebibyte);
  // 64 MiB stay free.
  expect((await hostWithFiles(79 * mebibyte).make(mebibyte)).size).toBe(15 * mebibyte);
  expect((await hostWithFiles(65 * mebibyte).make(mebibyte)).size).toBe(mebibyte);
  await expect(hostWithFiles(65 * mebibyte).make(mebibyte + 1)).rejects.toThrow(
    "has 1048576 left for state; make room there, or lower the helper's --keep-free, or give it a --device",
  );
  await expect(hostWithFiles(1024 * mebibyte).make(300 * mebibyte)).rejects.toThrow(
    "314572800 bytes are needed, the limit for one stub domain is 268435456; raise the helper's --limit",
  );
});

test("what is to spare keeps nobody out who comes at the same time", async () => {
  const pool = hostWithFiles(300 * mebibyte);
  const backings = await Promise.all(Array.from({ length: 8 }, () => pool.make(mebibyte)));
  expect(backings.map(({ size }) => size)).toEqual(Array(8).fill(16 * mebibyte));
});
