import type { Platform } from "../platform/port.ts";
import { XenstoreClient } from "./client.ts";

/** How many connections share the reads; each has one request under way. */
const lanes = 4;

/**
 * Reads the values of many nodes, in the order of `paths`. A connection to the kernel's device has one request
 * under way at a time, so that with one the round trips add up; several go side by side. They last for this
 * call alone, however it ends; the first failure is its failure.
 *
 * @throws XenstoreFailure, SystemError when the device cannot be opened
 */
export async function readAll(
  platform: Pick<Platform, "descriptors" | "clock">,
  paths: readonly string[],
): Promise<readonly Uint8Array[]> {
  const clients: XenstoreClient[] = [];
  try {
    while (clients.length < Math.min(lanes, paths.length)) clients.push(XenstoreClient.connect(platform));
    return await Promise.all(
      paths.map((path, i) => (clients[i % clients.length] as XenstoreClient).read(path)),
    );
  } finally {
    for (const client of clients) client.close();
  }
}
