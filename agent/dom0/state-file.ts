import type { Platform } from "../platform/port.ts";
import { DescriptorStore } from "../savestate/descriptor-store.ts";
import { DiskWriter, isRawQemu, openDisk, readAnchors, type StateMeta } from "../savestate/disk.ts";
import { StateFormatError } from "../savestate/errors.ts";
import { ExtentReader } from "../savestate/extent.ts";
import { hex64, pieceAt, type StateHeader } from "../savestate/format.ts";
import { BareState } from "./bare-state.ts";
import { FileInput } from "./file-input.ts";
import { removeFile } from "./transfer.ts";

/** What a file with state in it is. */
export interface StateFileReport {
  readonly kind: "state disk" | "framed stream" | "bare QEMU state";
  /** False: a guest must not be started from it. Unknown: a bare state without checksums behind it. */
  readonly whole: boolean | "unknown";
  /** Why it is not whole, with the offset. */
  readonly fault?: string;
  /** Bytes of QEMU's state. */
  readonly bytes?: number;
  readonly chunks?: number;
  readonly sequence?: number;
  readonly uuid?: string;
  readonly qemuVersion?: string;
  /** Checksum over all, XXH64 in hexadecimal. */
  readonly checksum?: string;
  /** Where the state begins in the file. */
  readonly offset?: number;
}

type Take = (part: Uint8Array) => Promise<void>;

/**
 * Reads a file or block device that holds state, verifying all of it.
 *
 * @param take gets QEMU's state, part by part; each part has been verified, but for a bare state
 * @throws SystemError when it cannot be read; a state that is not whole is a report, not an error
 */
export async function readStateFile(
  platform: Platform,
  path: string,
  take: Take = async () => {},
): Promise<StateFileReport> {
  const fd = platform.descriptors.open(path, { access: "read" });
  const store = new DescriptorStore(platform, fd);
  try {
    const start = await new FileInput(platform, fd).peek();
    if (isRawQemu(start)) return await readBare(platform, fd, take);
    if (pieceAt(start) === "header") return await readFramed(platform, fd, take);
    return await readDisk(platform, store, take);
  } finally {
    store.close();
  }
}

async function readBare(platform: Platform, fd: number, take: Take): Promise<StateFileReport> {
  try {
    const state = await BareState.open(platform, fd);
    const buffer = platform.storage.buffer(64 * 1024);
    for (let count = await state.take(buffer); count > 0; count = await state.take(buffer)) {
      await take(buffer.subarray(0, count));
    }
    await state.verify();
    return { kind: "bare QEMU state", whole: state.checked || "unknown", bytes: state.length };
  } catch (error) {
    return refused("bare QEMU state", error, undefined);
  }
}

async function readFramed(platform: Platform, fd: number, take: Take): Promise<StateFileReport> {
  const { hash, buffer } = platform.storage;
  const extent = new ExtentReader(new FileInput(platform, fd), 0, hash, buffer);
  let header: StateHeader | undefined;
  try {
    header = await extent.header();
    for (let part = await extent.next(); ; part = await extent.next()) {
      if (part instanceof Uint8Array) await take(part);
      else return { kind: "framed stream", whole: true, ...about(header, part), offset: 0 };
    }
  } catch (error) {
    return refused("framed stream", error, header);
  }
}

async function readDisk(platform: Platform, store: DescriptorStore, take: Take): Promise<StateFileReport> {
  try {
    const reader = await openDisk(store, platform.storage.hash);
    const { header, commit } = await reader.read(take);
    return { kind: "state disk", whole: true, ...about(header, commit), offset: reader.anchor.offset };
  } catch (error) {
    const report = refused("state disk", error, undefined);
    const { newest } = await readAnchors(store, platform.storage.hash);
    return newest === undefined ? report : { ...report, sequence: newest.sequence, offset: newest.offset };
  }
}

function about(header: StateHeader, commit: { length: number; chunks: number; checksum: bigint }) {
  const { uuid, qemuVersion, sequence } = header;
  return {
    bytes: commit.length,
    chunks: commit.chunks,
    checksum: hex64(commit.checksum),
    uuid,
    qemuVersion,
    sequence,
  };
}

function refused(
  kind: StateFileReport["kind"],
  error: unknown,
  header: StateHeader | undefined,
): StateFileReport {
  if (!(error instanceof StateFormatError)) throw error;
  const known = header && { uuid: header.uuid, qemuVersion: header.qemuVersion, sequence: header.sequence };
  return { kind, whole: false, fault: error.message, ...known };
}

/**
 * Makes a new state file; it has its name only once it is whole and on the disk.
 *
 * @param fill appends QEMU's state to the writer
 */
export async function writeStateFile(
  platform: Platform,
  path: string,
  meta: StateMeta,
  fill: (writer: DiskWriter) => Promise<void>,
): Promise<number> {
  const { descriptors, files, storage } = platform;
  const unfinished = unfinishedPath(platform, path);
  removeFile(platform, unfinished);
  const fd = storage.openNoFollow(unfinished, { access: "read-write", create: true, exclusive: true });
  const store = new DescriptorStore(platform, fd, {
    enlarge: async (size) => storage.truncate(fd, size),
  });
  try {
    await store.grow(8192);
    const writer = await DiskWriter.begin(store, meta, storage.hash);
    await fill(writer);
    const { commit } = await writer.commit();
    files.rename(unfinished, path);
    const directory = descriptors.open(path.replace(/[^/]*$/, "") || ".", { access: "read" });
    await storage.sync(directory);
    descriptors.close(directory);
    return commit.length;
  } catch (error) {
    removeFile(platform, unfinished);
    throw error;
  } finally {
    store.close();
  }
}

/** Of this process alone: another may be writing the same file. */
export function unfinishedPath({ processes }: Platform, path: string): string {
  return `${path}.${processes.pid}.unfinished`;
}
