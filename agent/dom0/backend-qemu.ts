import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import { SocketStream } from "../platform/stream.ts";
import { QmpClient, type QmpEvent } from "../qmp/client.ts";

/** How long the greeting and the first exchange may take, in milliseconds. */
const deadline = 10_000;

/**
 * A conversation with the QEMU in dom0 that is the backend of one stub domain's own screen and image files, over QMP. It
 * ends with `body`.
 *
 * @throws QmpError, SystemError; what `body` throws
 */
export async function withBackendQemu<T>(
  {
    platform,
    log,
  }: { readonly platform: Pick<Platform, "clock" | "descriptors" | "sockets">; readonly log: Logger },
  domid: number,
  body: (qmp: QmpClient) => Promise<T>,
  onEvent: (event: QmpEvent) => void = () => {},
): Promise<T> {
  const { clock, sockets } = platform;
  // libxl's own socket takes one client at a time; this one is there for whoever comes.
  const path = `/var/run/xen/qmp-libxenstat-${domid}`;
  const stream = new SocketStream(platform, sockets.connectUnix(path), path);
  const qmp = new QmpClient(stream, { clock, log, onEvent });
  try {
    await qmp.handshake(deadline);
    return await body(qmp);
  } finally {
    qmp.close();
  }
}
