import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import type { Platform } from "../../../agent/platform/port.ts";
import { DescriptorStore } from "../../../agent/savestate/descriptor-store.ts";
import { openDisk } from "../../../agent/savestate/disk.ts";
import { StateFormatError, StateSpaceError } from "../../../agent/savestate/errors.ts";
import { ExtentReader, ExtentWriter } from "../../../agent/savestate/extent.ts";
import { blockSize, encodeHeader, extentSize, firstExtent } from "../../../agent/savestate/format.ts";
import { Random } from "../../fakes/random.ts";
import { xxh64 } from "../../fakes/xxh64.ts";
import { MemoryStore, meta, randomBytes, readState, writeState } from "./support.ts";

const golden = (name: string) => new URL(`../../golden/savestate/${name}`, import.meta.url);

test("XXH64 of the fakes is XXH64", () => {
  const text = (value: string) => new TextEncoder().encode(value);
  expect(xxh64(text(""), 0n)).toBe(0xef46db3751d8e999n);
  expect(xxh64(text("a"), 0n)).toBe(0xd24ec4f1a98c6e5bn);
  expect(xxh64(text("abc"), 0n)).toBe(0x44bc2cf5ad770999n);
  expect(xxh64(text("Nobody inspects the spammish repetition"), 0n)).toBe(0xfbcea83c8a378bf1n);
});

test.each([0, 1, 4064, 4065, 8128, 100_000])("a state of %i bytes comes back as it was", async (size) => {
  const store = new MemoryStore(new Uint8Array(firstExtent));
  const state = randomBytes(size, size);
  await writeState(store, state);
  expect(Buffer.from(await readState(store)).equals(Buffer.from(state))).toBe(true);
  const reader = await openDisk(store, xxh64);
  expect(reader.anchor.size).toBe(extentSize(size, 4096));
  const { header, commit } = await reader.read();
  expect(header).toMatchObject({ uuid: meta.uuid, qemuVersion: meta.qemuVersion, sequence: 1 });
  expect(commit.length).toBe(size);
});

test("memory does not depend on the size of the state", async () => {
  const sizes = await Promise.all(
    [1_000, 2_000_000].map(async (size) => {
      const store = new MemoryStore(new Uint8Array(firstExtent));
      await writeState(store, randomBytes(size, 1), { chunkSize: 256 * 1024 });
      return store.allocated;
    }),
  );
  // Three chunks at most, and five blocks: for reading the anchors, the header, the commit record and the new anchor.
  expect(sizes).toEqual([1, 3].map((chunks) => chunks * 256 * 1024 + 5 * blockSize));
});

test("a descriptor is closed once nothing is under way on it, and takes nothing any more", async () => {
  const done: (() => void)[] = [];
  const closed: number[] = [];
  const platform = {
    descriptors: { close: (fd: number) => void closed.push(fd) },
    storage: { writeAt: () => new Promise<void>((resolve) => done.push(resolve)) },
  };
  const store = new DescriptorStore(platform as unknown as Platform, 7);
  const writes = [store.write(0, new Uint8Array(1)), store.write(1, new Uint8Array(1))];
  store.close();
  done[0]?.();
  await writes[0];
  expect(closed).toEqual([]);
  done[1]?.();
  await writes[1];
  store.close();
  expect(closed).toEqual([7]);
  await expect(store.write(2, new Uint8Array(1))).rejects.toMatchObject({ code: "EBADF" });
});

test("a transient disk is never flushed; its anchor waits for all else, in whatever order that ends", async () => {
  const asked: { offset: number; done: () => void }[] = [];
  const platform = {
    descriptors: { size: () => 1 << 20 },
    storage: {
      buffer: (size: number) => new Uint8Array(size),
      readAt: async (_fd: number, into: Uint8Array) => into.length,
      writeAt: (_fd: number, _from: Uint8Array, offset: number) =>
        new Promise<void>((done) => asked.push({ offset, done })),
      sync: () => Promise.reject(new Error("flushed")),
    },
  };
  const store = new DescriptorStore(platform as unknown as Platform, 7, { transient: true });
  const written = writeState(store, randomBytes(8_000, 1));
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  await turn();
  // Header, two chunks, commit record, all at once.
  expect(asked.map(({ offset }) => offset)).toEqual([0, 1, 2, 3].map((n) => firstExtent + n * blockSize));
  for (const { done } of asked.splice(0).reverse()) {
    expect(asked).toEqual([]);
    done();
    await turn();
  }
  expect(asked.map(({ offset }) => offset)).toEqual([0]);
  asked[0]?.done();
  await written;
});

test("nothing of a state lies in the room of the one before, and its anchor is written last", async () => {
  const store = new MemoryStore(new Uint8Array(firstExtent));
  for (let round = 1; round <= 12; round++) {
    const before = round === 1 ? undefined : (await openDisk(store, xxh64)).anchor;
    store.writes.length = 0;
    await writeState(store, randomBytes(20_000 + round, round));
    const last = store.writes.at(-1);
    expect(last?.offset).toBe(round % 2 === 1 ? 0 : blockSize);
    for (const write of store.writes.slice(0, -1)) {
      expect(write.offset).toBeGreaterThanOrEqual(firstExtent);
      if (before === undefined) continue;
      const apart =
        write.offset + write.bytes.length <= before.offset || write.offset >= before.offset + before.size;
      expect(apart).toBe(true);
    }
    expect(await readState(store)).toEqual(randomBytes(20_000 + round, round));
  }
  // Room is used again: twelve states take no more than a few.
  expect(store.size).toBeLessThan(4 * 1024 * 1024);
});

test("a full disk is told by name, and the older state stays", async () => {
  const store = new MemoryStore(new Uint8Array(64 * 1024), 64 * 1024);
  await writeState(store, randomBytes(20_000, 1));
  await expect(writeState(store, randomBytes(100_000, 2))).rejects.toBeInstanceOf(StateSpaceError);
  expect(await readState(store)).toEqual(randomBytes(20_000, 1));
});

test("the golden disk: written as it is, and read", async () => {
  const store = new MemoryStore(new Uint8Array(firstExtent));
  await writeState(store, randomBytes(10_000, 7));
  await writeState(store, randomBytes(5_000, 8), { qemuVersion: "" });
  const { anchor } = await openDisk(store, xxh64);
  const disk = store.contents.subarray(0, anchor.offset + anchor.size);
  const expected = readFileSync(golden("two-states.disk"));
  expect(Buffer.from(disk).equals(expected)).toBe(true);
  const read = new MemoryStore(new Uint8Array(expected));
  expect(await readState(read)).toEqual(randomBytes(5_000, 8));
});

const foreign: Record<string, [Uint8Array, RegExp]> = {
  "an empty file": [new Uint8Array(0), /byte 0: ends inside of the anchor/],
  zeros: [new Uint8Array(1 << 20), /byte 0: no state was ever completed/],
  "random bytes": [randomBytes(1 << 16, 3), /byte 0: [0-9a-f]{16} where the anchor/],
  "a bare QEMU state": [
    Uint8Array.from({ length: 65536 }, (_, i) => [0x51, 0x45, 0x56, 0x4d][i] ?? 0),
    /byte 0: a bare QEMU state/,
  ],
  "a framed stream": [
    new Uint8Array(
      Buffer.concat([encodeHeader({ ...meta, chunkSize: 4096, sequence: 1 }, xxh64), new Uint8Array(65536)]),
    ),
    /byte 0: a framed stream/,
  ],
};
test.each(Object.entries(foreign))("%s is refused", async (_, [bytes, message]) => {
  await expect(readState(new MemoryStore(bytes))).rejects.toThrow(message);
});

test("a newer format is refused by its version", async () => {
  const store = new MemoryStore(new Uint8Array(firstExtent));
  await writeState(store, randomBytes(100, 1));
  store.contents[16] = 2;
  await expect(readState(store)).rejects.toThrow(/byte 16: format version 2; this program reads version 1/);
});

/** Every way that one state on a disk can be cut short. */
async function oneState(): Promise<{ disk: Uint8Array; state: Uint8Array }> {
  const store = new MemoryStore(new Uint8Array(firstExtent));
  const state = randomBytes(30_000, 11);
  await writeState(store, state);
  const { anchor } = await openDisk(store, xxh64);
  return { disk: store.contents.slice(0, anchor.offset + anchor.size), state };
}

test("1,000 random cuts of a file are all refused", async () => {
  const { disk } = await oneState();
  const random = new Random(2024);
  for (let i = 0; i < 1000; i++) {
    const size = random.between(0, disk.length - 1);
    const error = await readState(new MemoryStore(disk.slice(0, size))).catch((e: unknown) => e);
    expect(error, `cut at ${size}`).toBeInstanceOf(StateFormatError);
    expect((error as StateFormatError).message).toMatch(/^state refused, byte \d+: \S/);
  }
});

test("10,000 random mutations are all refused", async () => {
  const { disk } = await oneState();
  const random = new Random(42);
  for (let i = 0; i < 10_000; i++) {
    const changed = disk.slice();
    const kind = random.between(0, 3);
    const at = random.between(0, disk.length - 1);
    const length = kind === 0 ? 1 : random.between(1, Math.min(6000, disk.length - at));
    const part = changed.subarray(at, at + length);
    if (kind === 0) part[0] = (part[0] ?? 0) ^ (1 << random.between(0, 7));
    else if (kind === 1) part.set(Uint8Array.from(part, () => random.uint32() & 0xff));
    else if (kind === 2) part.fill(0);
    else changed.copyWithin(at, random.between(0, disk.length - length), disk.length);
    if (Buffer.from(changed).equals(Buffer.from(disk))) continue;
    const error = await readState(new MemoryStore(changed)).catch((e: unknown) => e);
    expect(error, `mutation ${i}: kind ${kind}, ${length} bytes at ${at}`).toBeInstanceOf(StateFormatError);
  }
}, 120_000);

test("1,000 cuts and 2,000 mutations of a framed stream, as consoles carry it, are all refused", async () => {
  const parts: Uint8Array[] = [];
  const header = { uuid: meta.uuid, qemuVersion: "", chunkSize: 4096, sequence: 1 };
  const writer = new ExtentWriter(
    { put: async (bytes) => void parts.push(bytes.slice()) },
    header,
    xxh64,
    (size) => new Uint8Array(size),
  );
  await writer.append(randomBytes(30_000, 12));
  await writer.finish();
  const stream = new Uint8Array(Buffer.concat(parts));
  const read = async (bytes: Uint8Array) => {
    let at = 0;
    const take = async (into: Uint8Array) => {
      const part = bytes.subarray(at, at + into.length);
      into.set(part);
      at += part.length;
      return part.length;
    };
    const reader = new ExtentReader({ take }, 0, xxh64, (size) => new Uint8Array(size));
    await reader.header();
    while ((await reader.next()) instanceof Uint8Array);
  };
  await read(stream);
  const random = new Random(77);
  for (let i = 0; i < 3000; i++) {
    const at = random.between(0, stream.length - 1);
    const harmed = i < 1000 ? stream.slice(0, at) : stream.slice();
    if (i >= 1000) harmed[at] = (harmed[at] ?? 0) ^ random.between(1, 255);
    const error = await read(harmed).catch((e: unknown) => e);
    expect(error, `${i}: at ${at}`).toBeInstanceOf(StateFormatError);
  }
}, 60_000);

test("1,000 power cuts while a second state is written: the first or the second, whole, or refused", async () => {
  const first = randomBytes(9_000, 1);
  const second = randomBytes(30_000, 2);
  const store = new MemoryStore(new Uint8Array(1 << 20));
  await writeState(store, first);
  const before = store.contents.slice();
  store.writes.length = 0;
  await writeState(store, second);
  const total = store.writes.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const random = new Random(99);
  const outcomes = new Set<string>();
  for (let i = 0; i < 1000; i++) {
    // Half of the cuts within the last write, the anchor's: the one that decides.
    let left = i % 2 === 0 ? random.between(0, total) : random.between(total - blockSize, total);
    const disk = before.slice();
    for (const { offset, bytes } of store.writes) {
      const part = bytes.subarray(0, left);
      disk.set(part, offset);
      left -= part.length;
    }
    const read = await readState(new MemoryStore(disk)).catch((error: unknown) => error);
    if (read instanceof StateFormatError) {
      outcomes.add("refused");
      expect(await readState(new MemoryStore(disk), { acceptOlder: true })).toEqual(first);
    } else {
      const whole = Buffer.from(read as Uint8Array);
      const which = whole.equals(Buffer.from(first))
        ? "first"
        : whole.equals(Buffer.from(second))
          ? "second"
          : "";
      expect(which).not.toBe("");
      outcomes.add(which);
    }
  }
  expect(outcomes).toEqual(new Set(["first", "second", "refused"]));
});
