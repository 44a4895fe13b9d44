import { StateFormatError, StateSpaceError } from "./errors.ts";
import { ExtentReader, ExtentWriter, type WrittenExtent } from "./extent.ts";
import {
  blockSize,
  decodeAnchor,
  defaultChunkSize,
  encodeAnchor,
  firstExtent,
  type Hash,
  isZero,
  pieceAt,
  type StateAnchor,
  type StateCommit,
  type StateHeader,
} from "./format.ts";

/** A file or block device that state is kept on. Offsets, and buffers' sizes, are whole blocks. */
export interface BlockStore {
  /** Bytes that can be written now. */
  readonly size: number;
  /** Resolves to the bytes read, fewer only at the end. */
  read(offset: number, into: Uint8Array): Promise<number>;
  write(offset: number, from: Uint8Array): Promise<void>;
  /** What was written before is on the medium when this resolves. */
  flush(): Promise<void>;
  /** Makes {@link size} at least `size`, or as much more as the store thinks best. @throws StateSpaceError */
  grow(size: number): Promise<void>;
  /** Memory that `read` and `write` take. */
  buffer(size: number): Uint8Array;
}

export interface Anchors {
  /** The newest complete state. */
  readonly newest: StateAnchor | undefined;
  /** Which of the two holds `newest`. */
  readonly slot: 0 | 1;
  /** An anchor that is neither empty nor right: writing it was cut, or something changed it. */
  readonly damage: StateFormatError | undefined;
}

const anchorOffset = [0, blockSize] as const;

export async function readAnchors(store: BlockStore, hash: Hash): Promise<Anchors> {
  // Both by one question to the disk.
  const both = store.buffer(firstExtent);
  const size = await store.read(0, both);
  let newest: StateAnchor | undefined;
  let slot: 0 | 1 = 1;
  let damage: StateFormatError | undefined;
  for (const [index, offset] of anchorOffset.entries()) {
    const found = both.subarray(Math.min(offset, size), Math.min(offset + blockSize, size));
    if (found.length === blockSize && isZero(found)) continue;
    try {
      const anchor = decodeAnchor(found, offset, hash);
      if (newest === undefined || anchor.sequence > newest.sequence) {
        newest = anchor;
        slot = index === 0 ? 0 : 1;
      }
    } catch (error) {
      if (!(error instanceof StateFormatError)) throw error;
      damage ??= error;
    }
  }
  return { newest, slot, damage };
}

/**
 * Writes one state so that at any moment a reader finds the newest complete one: into room that the newest
 * does not use, its commit record after all of its data, and only then, flushed in between, the anchor that
 * leads to it, into the slot that does not lead to the newest.
 */
export class DiskWriter {
  readonly #extent: ExtentWriter;

  private constructor(
    private readonly store: BlockStore,
    private readonly hash: Hash,
    private readonly place: Place,
    readonly sequence: number,
    meta: StateMeta,
  ) {
    let position = place.offset;
    // The disk grows once at a time; what is put meanwhile waits for its turn.
    let growing: Promise<void> | undefined;
    const put = (bytes: Uint8Array): Promise<void> => {
      const offset = position;
      position += bytes.length;
      const end = position;
      if (growing === undefined && fits(store, place, end)) return store.write(offset, bytes);
      growing = (growing ?? Promise.resolve()).then(() => reserve(store, place, end));
      return growing.then(() => store.write(offset, bytes));
    };
    this.#extent = new ExtentWriter(
      { put },
      { chunkSize: defaultChunkSize, ...meta, sequence },
      hash,
      (size) => store.buffer(size),
    );
  }

  /** Begins a state after whatever the disk holds; what is damaged there counts as free. */
  static async begin(store: BlockStore, meta: StateMeta, hash: Hash): Promise<DiskWriter> {
    const { newest, slot } = await readAnchors(store, hash);
    const sequence = (newest?.sequence ?? 0) + 1;
    return new DiskWriter(store, hash, placeAfter(newest, slot), sequence, meta);
  }

  get length(): number {
    return this.#extent.length;
  }

  /** See {@link ExtentWriter.room}. */
  get room(): Uint8Array {
    return this.#extent.room;
  }

  /** See {@link ExtentWriter.filled}. @throws StateSpaceError, SystemError */
  filled(count: number): Promise<void> {
    return this.#extent.filled(count);
  }

  append(bytes: Uint8Array): Promise<void> {
    return this.#extent.append(bytes);
  }

  /** The state is complete and on the medium when this resolves. */
  async commit(): Promise<WrittenExtent> {
    const written = await this.#extent.finish();
    await this.store.flush();
    const block = this.store.buffer(blockSize);
    block.set(
      encodeAnchor(
        {
          sequence: this.sequence,
          offset: this.place.offset,
          size: written.size,
          headerChecksum: written.headerChecksum,
          commitChecksum: written.commitChecksum,
        },
        this.hash,
      ),
    );
    await this.store.write(anchorOffset[this.place.slot], block);
    await this.store.flush();
    return written;
  }
}

export type StateMeta = Pick<StateHeader, "uuid" | "qemuVersion"> & Partial<Pick<StateHeader, "chunkSize">>;

interface Place {
  readonly offset: number;
  /** Where the newest state begins, if that lies behind `offset`. */
  readonly limit: number | undefined;
  readonly slot: 0 | 1;
}

/**
 * Before the newest state where there is room for one twice its size (states of one guest hardly differ in
 * size), else after it.
 */
function placeAfter(newest: StateAnchor | undefined, newestSlot: 0 | 1): Place {
  if (newest === undefined) return { offset: firstExtent, limit: undefined, slot: 0 };
  const slot = newestSlot === 0 ? 1 : 0;
  if (newest.offset - firstExtent >= 2 * newest.size)
    return { offset: firstExtent, limit: newest.offset, slot };
  return { offset: newest.offset + newest.size, limit: undefined, slot };
}

function fits(store: BlockStore, { limit }: Place, end: number): boolean {
  return (limit === undefined || end <= limit) && end <= store.size;
}

async function reserve(store: BlockStore, { limit }: Place, end: number): Promise<void> {
  if (limit !== undefined && end > limit) {
    throw new StateSpaceError(`the state does not fit before the older one that begins at byte ${limit}`);
  }
  if (end > store.size) await store.grow(end);
}

/**
 * Opens the newest complete state of a disk.
 *
 * An anchor that is damaged makes it refuse, even when the other one is whole: the state that the other one
 * leads to may be older than the one that is meant, and a guest must not get an older device state than its
 * memory. `acceptOlder` is for people who look into a file.
 *
 * @throws StateFormatError
 */
export async function openDisk(
  store: BlockStore,
  hash: Hash,
  options: { readonly acceptOlder?: boolean } = {},
): Promise<DiskReader> {
  const { newest, damage } = await readAnchors(store, hash);
  if (damage !== undefined && !(options.acceptOlder && newest !== undefined))
    throw await foreign(store, damage);
  if (newest === undefined) {
    throw new StateFormatError("incomplete", 0, "no state was ever completed here: both anchors are empty");
  }
  if (newest.offset + newest.size > store.size) {
    const reason = `ends before byte ${newest.offset + newest.size}, where the state does`;
    throw new StateFormatError("incomplete", store.size, reason);
  }
  return new DiskReader(store, newest, hash);
}

/** Says what else it is, where that can be told. */
async function foreign(store: BlockStore, damage: StateFormatError): Promise<StateFormatError> {
  const block = store.buffer(blockSize);
  const count = await store.read(0, block);
  if (isRawQemu(block.subarray(0, count))) {
    return new StateFormatError("foreign", 0, 'a bare QEMU state ("QEVM"), not a state disk');
  }
  if (pieceAt(block.subarray(0, count)) === "header") {
    return new StateFormatError("foreign", 0, "a framed stream of state, not a state disk");
  }
  return damage;
}

/** QEMU's own stream begins with QEMU_VM_FILE_MAGIC (migration/qemu-file-types.h). */
export function isRawQemu(bytes: Uint8Array): boolean {
  return bytes[0] === 0x51 && bytes[1] === 0x45 && bytes[2] === 0x56 && bytes[3] === 0x4d;
}

export class DiskReader {
  constructor(
    private readonly store: BlockStore,
    readonly anchor: StateAnchor,
    private readonly hash: Hash,
  ) {}

  /**
   * Reads the state from its start, verifying all of it; `take` gets each part, which is valid until the
   * promise that it returns has resolved. May be called any number of times.
   *
   * @throws StateFormatError; what `take` got before was as it had been written
   */
  async read(take?: (part: Uint8Array) => Promise<void> | void): Promise<StateSummary> {
    const { offset, size, headerChecksum, commitChecksum } = this.anchor;
    const end = offset + size;
    let position = offset;
    const source = {
      take: async (into: Uint8Array) => {
        const count = await this.store.read(
          position,
          into.subarray(0, Math.min(into.length, end - position)),
        );
        position += count;
        return count;
      },
    };
    const extent = new ExtentReader(source, offset, this.hash, (bytes) => this.store.buffer(bytes));
    const header = await extent.header();
    if (header.checksum !== headerChecksum || header.sequence !== this.anchor.sequence) {
      throw new StateFormatError("corrupt", offset, "the header is not the one that the anchor leads to");
    }
    for (let part = await extent.next(); ; part = await extent.next()) {
      if (part instanceof Uint8Array) {
        await take?.(part);
        continue;
      }
      if (part.blockChecksum !== commitChecksum || extent.size !== size) {
        const reason = "the commit record is not the one that the anchor leads to";
        throw new StateFormatError("corrupt", offset + extent.size - blockSize, reason);
      }
      return { header, commit: part };
    }
  }
}

export interface StateSummary {
  readonly header: StateHeader;
  readonly commit: StateCommit;
}
