import type { Platform } from "../platform/port.ts";
import { TransferError } from "../savestate/errors.ts";
import { readStateFile, type StateFileReport, unfinishedPath } from "./state-file.ts";
import { removeFile } from "./transfer.ts";

/**
 * Writes QEMU's own state to the new file `to`, which appears only when all of it has been verified.
 *
 * @throws TransferError when the state is refused; nothing is left then
 */
export async function extractState(platform: Platform, from: string, to: string): Promise<StateFileReport> {
  const { descriptors, files, storage } = platform;
  const unfinished = unfinishedPath(platform, to);
  removeFile(platform, unfinished);
  const fd = storage.openNoFollow(unfinished, { access: "write", create: true, exclusive: true });
  try {
    let position = 0;
    const report = await readStateFile(platform, from, async (part) => {
      await storage.writeAt(fd, part, position);
      position += part.length;
    });
    if (report.whole === false) throw new TransferError(`${from}: ${report.fault}`);
    await storage.sync(fd);
    files.rename(unfinished, to);
    return report;
  } catch (error) {
    removeFile(platform, unfinished);
    throw error;
  } finally {
    descriptors.close(fd);
  }
}
