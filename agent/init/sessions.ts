import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import type { ByteStream } from "../platform/stream.ts";
import { serveVchan, type VchanServer } from "../qmp/vchan.ts";
import type { XenstoreClient } from "../xenstore/client.ts";

/** Sessions with dom0, one after the other, over a vchan that is offered at `path`. */
export function serveSessions(
  { platform, log, store }: { platform: Platform; log: Logger; store: XenstoreClient },
  label: string,
  path: string,
  session: (client: ByteStream) => Promise<boolean>,
): VchanServer {
  const { vchans, descriptors, clock } = platform;
  const withdraw = async () => {
    await Promise.all(["ring-ref", "event-channel"].map((node) => store.remove(`${path}/${node}`)));
  };
  return serveVchan({ vchans, descriptors, clock, log, label, domid: 0, path, withdraw, session });
}
