import type { Platform } from "../platform/port.ts";
import type { DescriptorStore } from "../savestate/descriptor-store.ts";
import { DiskWriter, isRawQemu, openDisk, type StateMeta } from "../savestate/disk.ts";
import { StateFormatError, StateSpaceError, TransferError } from "../savestate/errors.ts";
import { ExtentReader } from "../savestate/extent.ts";
import { checkGuest, extentSize, firstExtent, pieceAt } from "../savestate/format.ts";
import { StateSums, tailSize, unchecked } from "../savestate/tail.ts";
import type { BackingPool } from "./backing.ts";
import { BareState } from "./bare-state.ts";
import { FileInput } from "./file-input.ts";
import { type HelperSettings, resumePath, savePath, unfinishedSavePath } from "./settings.ts";

/**
 * Verifies the state on a disk and puts what QEMU wrote where libxl reads it, under its final name only when
 * all of it is there, with checksums behind it. Each part is verified in memory and written from there, so that
 * what lies on the disk cannot change in between.
 *
 * @param promised length that the stub domain told
 * @returns bytes of the state
 * @throws StateError, SystemError; nothing is left then
 */
export async function placeState(
  platform: Platform,
  settings: HelperSettings,
  pool: Pick<BackingPool, "reserve">,
  store: DescriptorStore,
  target: number,
  promised: number,
): Promise<number> {
  const { descriptors, files, storage } = platform;
  const reader = await openDisk(store, storage.hash);
  const { size } = reader.anchor;
  const most = size + tailSize(size);
  // Refused while the guest can still go on, and not when it is to be restored.
  if (firstExtent + extentSize(most) > settings.limit) {
    throw new StateSpaceError(
      `a state of up to ${size} bytes could not be restored: the limit for one stub domain's disk is ${settings.limit}; raise the helper's --limit`,
    );
  }
  const unreserve = pool.reserve(settings.xenDirectory, most, store);
  const unfinished = unfinishedSavePath(settings, target);
  let fd: number | undefined;
  try {
    removeFile(platform, unfinished);
    fd = storage.openNoFollow(unfinished, { access: "write", create: true, exclusive: true, mode: 0o600 });
    const into = fd;
    let position = 0;
    const sums = new StateSums(storage.hash);
    const { commit } = await reader.read(async (part) => {
      await storage.writeAt(into, part, position);
      sums.add(part);
      position += part.length;
    });
    await storage.writeAt(into, sums.tail(), position);
    if (commit.length !== promised) {
      throw new TransferError(`the stub domain told of ${promised} bytes, the disk holds ${commit.length}`);
    }
    fd = undefined;
    descriptors.close(into);
    files.rename(unfinished, savePath(settings, target));
    return commit.length;
  } catch (error) {
    if (fd !== undefined) descriptors.close(fd);
    removeFile(platform, unfinished);
    throw error;
  } finally {
    unreserve();
  }
}

/**
 * Puts the state that libxl has received for a guest onto a disk, framed. Takes QEMU's bare state, checked where
 * checksums stand behind it, and what a stub domain framed for its console.
 *
 * @param makeStore makes the disk, when the size of what will be on it is known
 * @returns bytes of the state
 */
export async function loadState(
  platform: Platform,
  settings: HelperSettings,
  target: number,
  uuid: string,
  makeStore: (bytes: number) => Promise<DescriptorStore>,
): Promise<number> {
  const { descriptors, storage, files } = platform;
  const path = resumePath(settings, target);
  const fd = storage.openNoFollow(path, { access: "read", nonBlocking: true });
  try {
    if (files.status(path).kind !== "file") throw new TransferError(`${path} is no plain file`);
    const size = descriptors.size(fd);
    if (size > settings.limit) {
      throw new StateSpaceError(
        `${path} has ${size} bytes, the limit for one stub domain is ${settings.limit}; raise the helper's --limit`,
      );
    }
    const input = new FileInput(platform, fd);
    const start = await input.peek();
    const store = await makeStore(size);
    if (isRawQemu(start)) {
      const writer = await DiskWriter.begin(store, { uuid, qemuVersion: "" }, storage.hash);
      const state = await BareState.open(platform, fd);
      if (!state.checked && !settings.acceptUnchecked) {
        throw new StateFormatError("incomplete", size, unchecked);
      }
      for (let count = await state.take(writer.room); count > 0; count = await state.take(writer.room)) {
        await writer.filled(count);
      }
      await state.verify();
      return (await writer.commit()).commit.length;
    }
    if (pieceAt(start) === "header") return await reframe(platform, settings, input, store, uuid);
    const fault = size === 0 ? "incomplete" : "foreign";
    throw new StateFormatError(fault, 0, `${path} holds neither QEMU's state nor a framed one`);
  } finally {
    descriptors.close(fd);
  }
}

async function reframe(
  platform: Platform,
  settings: HelperSettings,
  input: FileInput,
  store: DescriptorStore,
  uuid: string,
): Promise<number> {
  const { hash, buffer } = platform.storage;
  const extent = new ExtentReader(input, 0, hash, buffer);
  const header = await extent.header();
  if (!settings.acceptUnchecked) checkGuest(header, 0, uuid);
  const meta: StateMeta = { uuid, qemuVersion: header.qemuVersion };
  const writer = await DiskWriter.begin(store, meta, hash);
  for (let part = await extent.next(); ; part = await extent.next()) {
    if (part instanceof Uint8Array) await writer.append(part);
    else return (await writer.commit()).commit.length;
  }
}

export function removeFile({ files }: Platform, path: string): void {
  if (files.exists(path)) files.remove(path);
}
