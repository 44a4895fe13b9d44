import { type Platform, SystemError } from "../platform/port.ts";
import { DescriptorStream } from "../platform/stream.ts";
import { XenstoreClient } from "../xenstore/client.ts";

/** Where xenstored listens in its own domain. */
export const xenstoredSocket = "/run/xenstored/socket";

/**
 * xenstore from dom0: the kernel's device, or xenstored's own socket where the kernel offers none.
 *
 * @param socket xenstored's socket, to be used in place of both
 * @throws SystemError
 */
export function connectXenstore(platform: Platform, socket?: string): XenstoreClient {
  if (socket === undefined) {
    try {
      return XenstoreClient.connect(platform);
    } catch (error) {
      if (!(error instanceof SystemError && (error.code === "ENOENT" || error.code === "ENXIO"))) throw error;
    }
  }
  const path = socket ?? xenstoredSocket;
  const fd = platform.sockets.connectUnix(path);
  return new XenstoreClient(new DescriptorStream(platform.descriptors, fd, path), platform.clock);
}

/** @throws RangeError when no domain has this name or number */
export async function findDomain(xenstore: XenstoreClient, nameOrNumber: string): Promise<number> {
  const domids = (await xenstore.directory("/local/domain")).map(Number);
  const names = await Promise.all(domids.map((domid) => xenstore.tryReadText(`/local/domain/${domid}/name`)));
  const byName = domids[names.indexOf(nameOrNumber)];
  if (byName !== undefined) return byName;
  const byNumber = domids.find((domid) => String(domid) === nameOrNumber);
  if (byNumber !== undefined) return byNumber;
  throw new RangeError(`no domain ${nameOrNumber}; \`xl list\` shows what there is`);
}
