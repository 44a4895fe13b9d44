import { StateFormatError } from "./errors.ts";
import {
  blockSize,
  checksumOf,
  chunkExtent,
  chunkHeaderSize,
  decodeCommit,
  decodeHeader,
  encodeCommit,
  encodeHeader,
  foldChunk,
  type Hash,
  peekChunk,
  pieceAt,
  type StateCommit,
  type StateHeader,
  sealChunk,
  verifyChunk,
} from "./format.ts";

/** Where an extent goes, piece after piece. */
export interface ExtentSink {
  /**
   * Takes `bytes`, which stay as they are until the promise has resolved. Called again before that: what is put first
   * lies first.
   */
  put(bytes: Uint8Array): Promise<void>;
}

/** Where an extent comes from. */
export interface ExtentSource {
  /** Fills `into`; resolves to the bytes got, fewer only at the end. */
  take(into: Uint8Array): Promise<number>;
}

export interface WrittenExtent {
  readonly commit: StateCommit;
  readonly headerChecksum: bigint;
  readonly commitChecksum: bigint;
  /** Bytes of the whole extent. */
  readonly size: number;
}

const noWrite = Promise.resolve();
const ignore = (): void => {};

/** Chunks in memory: one is filled, two are on their way, so that the disk never waits. */
const chunksHeld = 3;

/**
 * Frames a stream of state: `room` and `filled` alternate until the state has ended, then `finish`. Holds three
 * chunks.
 */
export class ExtentWriter {
  readonly #headerChecksum: bigint;
  /** Made when they are first needed: most states fit into one. */
  readonly #buffers: Uint8Array[] = [];
  /** The last write from each buffer; its failure is met when the buffer is needed again. */
  readonly #writes: Promise<void>[] = [];
  readonly #headerWrite: Promise<void>;
  #filled = 0;
  #length = 0;
  #chunks = 0;
  #size = 0;
  #checksum: bigint;

  /** @param buffer gives zeroed memory of the kind that `sink` wants */
  constructor(
    private readonly sink: ExtentSink,
    private readonly header: StateHeader,
    private readonly hash: Hash,
    private readonly buffer: (size: number) => Uint8Array,
  ) {
    const block = buffer(blockSize);
    block.set(encodeHeader(header, hash));
    this.#headerChecksum = checksumOf(block);
    this.#checksum = this.#headerChecksum;
    this.#headerWrite = this.#start(block);
  }

  /** Bytes of state taken so far. */
  get length(): number {
    return this.#length + this.#filled;
  }

  /** Where the next bytes of state go: at least one byte, and no more than fits into the chunk. */
  get room(): Uint8Array {
    return this.#buffer().subarray(chunkHeaderSize + this.#filled);
  }

  /** `count` bytes were put at the start of {@link room}. */
  filled(count: number): Promise<void> {
    this.#filled += count;
    return chunkHeaderSize + this.#filled === this.header.chunkSize ? this.#passOn() : noWrite;
  }

  async append(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      const { room } = this;
      const part = rest.subarray(0, room.length);
      room.set(part);
      rest = rest.subarray(part.length);
      await this.filled(part.length);
    }
  }

  /** Everything, the commit record last, has been put when this resolves. */
  async finish(): Promise<WrittenExtent> {
    if (this.#filled > 0) await this.#passOn();
    const commit: StateCommit = {
      sequence: this.header.sequence,
      length: this.#length,
      chunks: this.#chunks,
      checksum: this.#checksum,
    };
    const block = this.buffer(blockSize);
    block.set(encodeCommit(commit, this.#headerChecksum, this.hash));
    await Promise.all([this.#headerWrite, ...this.#writes, this.#start(block)]);
    return {
      commit,
      headerChecksum: this.#headerChecksum,
      commitChecksum: checksumOf(block),
      size: this.#size,
    };
  }

  /** Resolves when the next chunk may be filled. */
  #passOn(): Promise<void> {
    const chunk = { offset: this.#length, length: this.#filled, index: this.#chunks };
    const sealed = sealChunk(this.#buffer(), chunk, this.#headerChecksum, this.hash);
    this.#checksum = foldChunk(this.#checksum, sealed, this.hash);
    this.#writes[this.#chunks % chunksHeld] = this.#start(sealed);
    this.#length += this.#filled;
    this.#chunks += 1;
    this.#filled = 0;
    return this.#writes[this.#chunks % chunksHeld] ?? noWrite;
  }

  /** The one being filled. */
  #buffer(): Uint8Array {
    const index = this.#chunks % chunksHeld;
    const buffer = this.#buffers[index] ?? this.buffer(this.header.chunkSize);
    this.#buffers[index] = buffer;
    return buffer;
  }

  #start(bytes: Uint8Array): Promise<void> {
    this.#size += bytes.length;
    const writing = this.sink.put(bytes);
    // Whoever awaits a later step is told; until then it is not unhandled.
    writing.catch(ignore);
    return writing;
  }
}

/** Takes a framed state apart again; every byte that it gives out has been verified. */
export class ExtentReader {
  #position: number;
  #length = 0;
  #chunks = 0;
  #checksum = 0n;
  #header: (StateHeader & { readonly checksum: bigint }) | undefined;
  #buffer: Uint8Array;

  /** @param start offset of the extent on its disk, for errors. @param buffer as for {@link ExtentWriter} */
  constructor(
    private readonly source: ExtentSource,
    private readonly start: number,
    private readonly hash: Hash,
    private readonly buffer: (size: number) => Uint8Array,
  ) {
    this.#position = start;
    this.#buffer = buffer(blockSize);
  }

  /** Bytes of the extent read so far. */
  get size(): number {
    return this.#position - this.start;
  }

  /** To be called first, once. @throws StateFormatError */
  async header(): Promise<StateHeader & { readonly checksum: bigint }> {
    const block = await this.#take(this.#buffer.subarray(0, blockSize), "header");
    const header = decodeHeader(block, this.#position - blockSize, this.hash);
    this.#header = header;
    this.#checksum = header.checksum;
    this.#buffer = this.buffer(header.chunkSize);
    return header;
  }

  /**
   * The next part of the state, valid until the next call, or the commit record when all of it was given.
   *
   * @throws StateFormatError
   */
  async next(): Promise<Uint8Array | (StateCommit & { readonly blockChecksum: bigint })> {
    const header = this.#header;
    if (header === undefined) throw new Error("ExtentReader: next before header");
    const start = this.#position;
    const block = await this.#take(this.#buffer.subarray(0, blockSize), "next chunk or the commit record");
    if (pieceAt(block) !== "chunk") return this.#commit(block, start, header.checksum);

    const { offset, length, index } = peekChunk(block, start, header.chunkSize);
    const size = chunkExtent(length);
    if (size > blockSize) await this.#take(this.#buffer.subarray(blockSize, size), "chunk");
    const chunk = this.#buffer.subarray(0, size);
    verifyChunk(chunk, start, header.checksum, this.hash);
    if (offset !== this.#length || index !== this.#chunks) {
      const reason = `chunk ${index} of byte ${offset} where chunk ${this.#chunks} of byte ${this.#length} should be`;
      throw new StateFormatError("corrupt", start, reason);
    }
    this.#checksum = foldChunk(this.#checksum, chunk, this.hash);
    this.#length += length;
    this.#chunks += 1;
    return chunk.subarray(chunkHeaderSize, chunkHeaderSize + length);
  }

  #commit(block: Uint8Array, start: number, seed: bigint) {
    const commit = decodeCommit(block, start, seed, this.hash);
    if (
      commit.length !== this.#length ||
      commit.chunks !== this.#chunks ||
      commit.checksum !== this.#checksum ||
      commit.sequence !== this.#header?.sequence
    ) {
      const reason = `the commit record is for ${commit.length} bytes in ${commit.chunks} chunks, read were ${this.#length} in ${this.#chunks}`;
      throw new StateFormatError("corrupt", start, reason);
    }
    return commit;
  }

  async #take(into: Uint8Array, what: string): Promise<Uint8Array> {
    const count = await this.source.take(into);
    const at = this.#position;
    this.#position += count;
    if (count < into.length) {
      throw new StateFormatError("incomplete", at + count, `ends where the ${what} should be`);
    }
    return into;
  }
}
