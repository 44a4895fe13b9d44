import { type BlockStore, DiskWriter, openDisk, type StateMeta } from "../../../agent/savestate/disk.ts";
import { StateSpaceError } from "../../../agent/savestate/errors.ts";
import { Random } from "../../fakes/random.ts";
import { xxh64 } from "../../fakes/xxh64.ts";

export const meta: StateMeta = {
  uuid: "01234567-89ab-cdef-0123-456789abcdef",
  qemuVersion: "10.0.13 (Debian 1:10.0.13+ds-0+deb13u1)",
  chunkSize: 4096,
};

/** A disk in memory that remembers every write, in order. */
export class MemoryStore implements BlockStore {
  readonly writes: { offset: number; bytes: Uint8Array; flushed: boolean }[] = [];
  /** Bytes of all buffers handed out. */
  allocated = 0;

  constructor(
    public contents: Uint8Array,
    private readonly limit = Number.POSITIVE_INFINITY,
  ) {}

  get size(): number {
    return this.contents.length;
  }

  async read(offset: number, into: Uint8Array): Promise<number> {
    const part = this.contents.subarray(offset, offset + into.length);
    into.set(part);
    return part.length;
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    if (offset + from.length > this.size) throw new Error("write behind the end");
    this.writes.push({ offset, bytes: from.slice(), flushed: false });
    await new Promise((resolve) => setImmediate(resolve));
    // As late as a real disk may: a buffer changed too early shows.
    this.contents.set(from, offset);
  }

  async flush(): Promise<void> {
    for (const write of this.writes) write.flushed = true;
  }

  async grow(size: number): Promise<void> {
    if (size > this.limit) throw new StateSpaceError(`limit ${this.limit}`);
    const larger = new Uint8Array(size);
    larger.set(this.contents);
    this.contents = larger;
  }

  buffer(size: number): Uint8Array {
    this.allocated += size;
    return new Uint8Array(size);
  }
}

export function randomBytes(size: number, seed: number): Uint8Array {
  const random = new Random(seed);
  return Uint8Array.from({ length: size }, () => random.uint32() & 0xff);
}

export async function writeState(
  store: BlockStore,
  state: Uint8Array,
  own: Partial<StateMeta> = {},
): Promise<void> {
  const writer = await DiskWriter.begin(store, { ...meta, ...own }, xxh64);
  // Odd pieces, as a pipe gives them.
  for (let at = 0; at < state.length; at += 1021) await writer.append(state.subarray(at, at + 1021));
  await writer.commit();
}

export async function readState(
  store: BlockStore,
  options: { acceptOlder?: boolean } = {},
): Promise<Uint8Array> {
  const reader = await openDisk(store, xxh64, options);
  const parts: Buffer[] = [];
  await reader.read((part) => void parts.push(Buffer.from(part)));
  return new Uint8Array(Buffer.concat(parts));
}

/** A state that begins as QEMU's do. */
export function qemuState(size: number, seed: number): Uint8Array {
  const state = randomBytes(size, seed);
  state.set([0x51, 0x45, 0x56, 0x4d]);
  return state;
}
