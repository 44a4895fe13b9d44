import { decodeText, encodeText } from "../bytes/text.ts";
import { type StateFault, StateFormatError } from "./errors.ts";

/*
 * Version 1 of the state disk, byte by byte; docs/state-disk.md says why. All numbers are little-endian.
 *
 *     disk       anchor A (block) | anchor B (block) | extents, each of whole blocks
 *     extent     header (block) | chunk | chunk | ... | commit (block)
 *
 * Every piece begins with its magic and a checksum of all that follows in the piece:
 *
 *     header     0 "LXSDHEAD"  8 checksum u64  16 version u32   20 chunk size u32  24 sequence u64
 *                32 guest's uuid [16]          48 QEMU's version [64], UTF-8, zeros after it   112 zeros
 *     chunk      0 "LXSDCHNK"  8 checksum u64  16 offset of its data in the state u64
 *                24 length u32                 28 index u32     32 data   then zeros to a whole block
 *     commit     0 "LXSDCMIT"  8 checksum u64  16 version u32   20 chunks u32      24 sequence u64
 *                32 length of the state u64    40 checksum over all u64            48 zeros
 *     anchor     0 "LXSDROOT"  8 checksum u64  16 version u32   20 zero u32        24 sequence u64
 *                32 extent's offset u64        40 extent's size u64
 *                48 header's checksum u64      56 commit's checksum u64            64 zeros
 *
 * Checksums are XXH64, of everything from byte 16 on. Those of chunk and commit are seeded with the header's,
 * so that nothing of another state is ever taken for this one's. "Checksum over all" is the header's checksum
 * folded with the first 32 bytes of every chunk in order: XXH64(chunk's 32 bytes, seed = result so far).
 */

export const blockSize = 4096;
export const formatVersion = 1;
export const chunkHeaderSize = 32;
/** Size of a full chunk as it is written; three of them are all that a transfer holds in memory. */
export const defaultChunkSize = 256 * 1024;
export const largestChunkSize = 512 * 1024;
/** Where the first extent may begin. */
export const firstExtent = 2 * blockSize;

/** XXH64. */
export type Hash = (bytes: Uint8Array, seed: bigint) => bigint;

export interface StateHeader {
  /** Grows with every state that is written to one disk. */
  readonly sequence: number;
  /** Of the guest, in the form of xenstore: `8-4-4-4-12` hexadecimal digits. */
  readonly uuid: string;
  /** Empty where it is not known. */
  readonly qemuVersion: string;
  readonly chunkSize: number;
}

export interface StateCommit {
  readonly sequence: number;
  /** Bytes of the state itself. */
  readonly length: number;
  readonly chunks: number;
  readonly checksum: bigint;
}

export interface StateAnchor {
  readonly sequence: number;
  /** Of the extent, in bytes from the start of the disk. */
  readonly offset: number;
  readonly size: number;
  readonly headerChecksum: bigint;
  readonly commitChecksum: bigint;
}

export interface ChunkHeader {
  /** Of its data, in the state. */
  readonly offset: number;
  readonly length: number;
  readonly index: number;
}

const magics = { header: "LXSDHEAD", chunk: "LXSDCHNK", commit: "LXSDCMIT", anchor: "LXSDROOT" } as const;
export type Piece = keyof typeof magics;

const magicBytes = Object.fromEntries(
  Object.entries(magics).map(([piece, magic]) => [piece, encodeText(magic)]),
) as Record<Piece, Uint8Array>;
const pieces = Object.keys(magics) as Piece[];
const magicSize = 8;
const checksumAt = 8;
/** Where the checksummed part of a piece begins. */
const bodyAt = 16;
const uuidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
export const nilUuid = "00000000-0000-0000-0000-000000000000";
const qemuVersionSize = 64;

/** Bytes that a chunk of `length` bytes of data takes. */
export function chunkExtent(length: number): number {
  return Math.ceil((chunkHeaderSize + length) / blockSize) * blockSize;
}

/** Bytes that a state of `length` bytes takes, header and commit included. */
export function extentSize(length: number, chunkSize = defaultChunkSize): number {
  const full = Math.floor(length / (chunkSize - chunkHeaderSize));
  const rest = length % (chunkSize - chunkHeaderSize);
  return 2 * blockSize + full * chunkSize + (rest > 0 ? chunkExtent(rest) : 0);
}

/** What `bytes` begin with. */
export function pieceAt(bytes: Uint8Array): Piece | undefined {
  return pieces.find((piece) => startsWith(bytes, magicBytes[piece]));
}

function startsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  return bytes.length >= prefix.length && prefix.every((byte, i) => bytes[i] === byte);
}

/**
 * A whole block sixteen bytes a round, where it lies so: byte by byte it takes QuickJS longer than the disk takes to write it.
 */
export function isZero(bytes: Uint8Array): boolean {
  const { buffer, byteOffset, length } = bytes;
  if (byteOffset % 4 !== 0 || length % 16 !== 0) return bytes.every((byte) => byte === 0);
  const words = new Int32Array(buffer, byteOffset, length / 4);
  const count = words.length;
  for (let at = 0; at < count; at += 4) {
    if (words[at] !== 0 || words[at + 1] !== 0 || words[at + 2] !== 0 || words[at + 3] !== 0) return false;
  }
  return true;
}

/** The checksum of a sealed piece, as it stands there. */
export function checksumOf(piece: Uint8Array): bigint {
  return viewOf(piece).getBigUint64(checksumAt, true);
}

export function encodeHeader(header: StateHeader, hash: Hash): Uint8Array {
  checkChunkSize(header.chunkSize, (reason) => new RangeError(reason));
  const { block, view } = newBlock("header");
  view.setUint32(20, header.chunkSize, true);
  setCount(view, 24, header.sequence);
  block.set(uuidBytes(header.uuid), 32);
  block.set(cutUtf8(encodeText(header.qemuVersion), qemuVersionSize), 48);
  return seal(block, 0n, hash);
}

/** @param offset of the block, for errors. @throws StateFormatError */
export function decodeHeader(
  bytes: Uint8Array,
  offset: number,
  hash: Hash,
): StateHeader & { readonly checksum: bigint } {
  const { view, checksum } = openBlock("header", bytes, offset, 0n, hash, 112);
  const chunkSize = view.getUint32(20, true);
  checkChunkSize(chunkSize, (reason) => new StateFormatError("corrupt", offset + 20, reason));
  const version = bytes.subarray(48, 48 + qemuVersionSize);
  const end = version.indexOf(0);
  return {
    checksum,
    chunkSize,
    sequence: count(view, 24, offset, "sequence"),
    uuid: uuidText(bytes.subarray(32, 48)),
    qemuVersion: decodeText(end < 0 ? version : version.subarray(0, end)),
  };
}

export function encodeCommit(commit: StateCommit, headerChecksum: bigint, hash: Hash): Uint8Array {
  const { block, view } = newBlock("commit");
  view.setUint32(20, commit.chunks, true);
  setCount(view, 24, commit.sequence);
  setCount(view, 32, commit.length);
  view.setBigUint64(40, commit.checksum, true);
  return seal(block, headerChecksum, hash);
}

/** @throws StateFormatError */
export function decodeCommit(
  bytes: Uint8Array,
  offset: number,
  headerChecksum: bigint,
  hash: Hash,
): StateCommit & { readonly blockChecksum: bigint } {
  const { view, checksum } = openBlock("commit", bytes, offset, headerChecksum, hash, 48);
  return {
    blockChecksum: checksum,
    chunks: view.getUint32(20, true),
    sequence: count(view, 24, offset, "sequence"),
    length: count(view, 32, offset, "length"),
    checksum: view.getBigUint64(40, true),
  };
}

export function encodeAnchor(anchor: StateAnchor, hash: Hash): Uint8Array {
  const { block, view } = newBlock("anchor");
  setCount(view, 24, anchor.sequence);
  setCount(view, 32, anchor.offset);
  setCount(view, 40, anchor.size);
  view.setBigUint64(48, anchor.headerChecksum, true);
  view.setBigUint64(56, anchor.commitChecksum, true);
  return seal(block, 0n, hash);
}

/** @throws StateFormatError */
export function decodeAnchor(bytes: Uint8Array, offset: number, hash: Hash): StateAnchor {
  const { view } = openBlock("anchor", bytes, offset, 0n, hash, 64);
  const anchor = {
    sequence: count(view, 24, offset, "sequence"),
    offset: count(view, 32, offset, "extent offset"),
    size: count(view, 40, offset, "extent size"),
    headerChecksum: view.getBigUint64(48, true),
    commitChecksum: view.getBigUint64(56, true),
  };
  const misplaced = anchor.offset < firstExtent || anchor.offset % blockSize !== 0;
  if (misplaced || anchor.size < 2 * blockSize || anchor.size % blockSize !== 0) {
    throw new StateFormatError(
      "corrupt",
      offset + 32,
      `an extent of ${anchor.size} bytes at ${anchor.offset} is impossible`,
    );
  }
  return anchor;
}

/**
 * Completes a chunk in place. `buffer` holds `length` bytes of data from byte 32 on; what lies after them up
 * to the next block boundary is overwritten with zeros.
 *
 * @returns the part of `buffer` to be written
 */
export function sealChunk(
  buffer: Uint8Array,
  chunk: ChunkHeader,
  headerChecksum: bigint,
  hash: Hash,
): Uint8Array {
  const whole = buffer.subarray(0, chunkExtent(chunk.length));
  whole.fill(0, chunkHeaderSize + chunk.length);
  whole.set(magicBytes.chunk);
  const view = viewOf(whole);
  setCount(view, 16, chunk.offset);
  view.setUint32(24, chunk.length, true);
  view.setUint32(28, chunk.index, true);
  return seal(whole, headerChecksum, hash);
}

/** The header alone: how long the chunk is. Nothing of it is certain before {@link verifyChunk}. */
export function peekChunk(bytes: Uint8Array, offset: number, chunkSize: number): ChunkHeader {
  const view = viewOf(bytes);
  const length = view.getUint32(24, true);
  if (length === 0 || length > chunkSize - chunkHeaderSize) {
    throw new StateFormatError("corrupt", offset + 24, `a chunk of ${length} bytes is impossible`);
  }
  return { offset: count(view, 16, offset, "chunk offset"), length, index: view.getUint32(28, true) };
}

/** @param bytes the whole chunk as it was written. @throws StateFormatError */
export function verifyChunk(bytes: Uint8Array, offset: number, headerChecksum: bigint, hash: Hash): void {
  verify(bytes, offset, headerChecksum, hash, "chunk");
}

/** The checksum over all, after one more chunk. */
export function foldChunk(soFar: bigint, chunk: Uint8Array, hash: Hash): bigint {
  return hash(chunk.subarray(0, chunkHeaderSize), soFar);
}

function newBlock(piece: Piece): { block: Uint8Array; view: DataView } {
  const block = new Uint8Array(blockSize);
  block.set(magicBytes[piece]);
  const view = viewOf(block);
  view.setUint32(bodyAt, formatVersion, true);
  return { block, view };
}

function seal(bytes: Uint8Array, seed: bigint, hash: Hash): Uint8Array {
  viewOf(bytes).setBigUint64(checksumAt, hash(bytes.subarray(bodyAt), seed), true);
  return bytes;
}

function openBlock(
  piece: Exclude<Piece, "chunk">,
  bytes: Uint8Array,
  offset: number,
  seed: bigint,
  hash: Hash,
  usedSize: number,
): { view: DataView; checksum: bigint } {
  if (bytes.length < blockSize) {
    throw new StateFormatError("incomplete", offset + bytes.length, `ends inside of the ${piece}`);
  }
  const found = pieceAt(bytes);
  if (found !== piece) throw new StateFormatError(...misfit(piece, found, bytes, offset));
  // A newer version may checksum differently, so it is asked for first.
  const view = viewOf(bytes);
  const version = view.getUint32(bodyAt, true);
  if (version !== formatVersion) {
    const reason = `format version ${version}; this program reads version ${formatVersion}`;
    throw new StateFormatError("version", offset + bodyAt, reason);
  }
  const checksum = verify(bytes, offset, seed, hash, piece);
  if (!isZero(bytes.subarray(usedSize, blockSize))) {
    throw new StateFormatError("corrupt", offset + usedSize, `the ${piece}'s unused part is not zero`);
  }
  return { view, checksum };
}

function misfit(
  wanted: Piece,
  found: Piece | undefined,
  bytes: Uint8Array,
  offset: number,
): [StateFault, number, string] {
  if (isZero(bytes.subarray(0, magicSize))) {
    return ["incomplete", offset, `zeros where the ${wanted} should be: it was never written`];
  }
  const shown = found === undefined ? `${hex(bytes.subarray(0, magicSize))}` : `a ${found}`;
  const fault = found === undefined && wanted !== "commit" ? "foreign" : "corrupt";
  return [fault, offset, `${shown} where the ${wanted} ("${magics[wanted]}") should be`];
}

function verify(bytes: Uint8Array, offset: number, seed: bigint, hash: Hash, what: string): bigint {
  const stored = checksumOf(bytes);
  const computed = hash(bytes.subarray(bodyAt), seed);
  if (stored !== computed) {
    const reason = `the ${what}'s checksum is ${hex64(computed)}, it was written with ${hex64(stored)}`;
    throw new StateFormatError("corrupt", offset, reason);
  }
  return stored;
}

function checkChunkSize(size: number, error: (reason: string) => Error): void {
  if (size < blockSize || size > largestChunkSize || size % blockSize !== 0) {
    throw error(`chunk size ${size}, allowed are multiples of ${blockSize} up to ${largestChunkSize}`);
  }
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function setCount(view: DataView, at: number, value: number): void {
  view.setBigUint64(at, BigInt(value), true);
}

/** A 64-bit number that must fit into what JavaScript counts exactly. */
function count(view: DataView, at: number, offset: number, what: string): number {
  const value = view.getBigUint64(at, true);
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) {
    throw new StateFormatError("corrupt", offset + at, `${what} ${value} is impossible`);
  }
  return Number(value);
}

/**
 * @param offset where the header begins
 * @throws StateFormatError when the state is another guest's
 */
export function checkGuest({ uuid }: StateHeader, offset: number, expected: string): void {
  if (uuid === expected) return;
  throw new StateFormatError(
    "foreign",
    offset + 32,
    `the state is of guest ${uuid}, this one is ${expected}`,
  );
}

function uuidBytes(uuid: string): Uint8Array {
  if (!uuidPattern.test(uuid)) throw new RangeError(`not a uuid: ${uuid.slice(0, 64)}`);
  const digits = uuid.replaceAll("-", "");
  return Uint8Array.from({ length: 16 }, (_, i) => Number.parseInt(digits.slice(2 * i, 2 * i + 2), 16));
}

function uuidText(bytes: Uint8Array): string {
  return hex(bytes).replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}

/** At most `size` bytes, no character cut in two. */
function cutUtf8(bytes: Uint8Array, size: number): Uint8Array {
  let end = Math.min(size, bytes.length);
  while (end < bytes.length && end > 0 && ((bytes[end] ?? 0) & 0xc0) === 0x80) end--;
  return bytes.subarray(0, end);
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function hex64(value: bigint): string {
  return value.toString(16).padStart(16, "0");
}
