import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import type { ByteStream } from "../platform/stream.ts";
import { serveVchan, type VchanServer } from "../qmp/vchan.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { ConnectionLost, RequestTimedOut } from "../xenstore/errors.ts";

/** Then the stub domain ends, which is told, and its nodes with it. */
function unlessLost(error: unknown): void {
  if (!(error instanceof ConnectionLost || error instanceof RequestTimedOut)) throw error;
}

interface SessionsContext {
  readonly platform: Platform;
  readonly log: Logger;
  readonly store: XenstoreClient;
  /** Gets what keeps dom0 from having any; left out, the log does. */
  complain?(text: string): void;
}

/** Sessions with dom0, one after the other, over a vchan that is offered at `path`. */
export function serveSessions(
  { platform, log, store, complain }: SessionsContext,
  label: string,
  path: string,
  session: (client: ByteStream) => Promise<boolean>,
): VchanServer {
  const { vchans, descriptors, clock } = platform;
  const withdraw = async () => {
    const nodes = ["ring-ref", "event-channel"];
    await Promise.all(nodes.map((node) => store.remove(`${path}/${node}`).catch(unlessLost)));
  };
  const told = complain ?? ((text: string) => log.error({ path }, text));
  return serveVchan({
    ...{ vchans, descriptors, clock, log, label, domid: 0, path, withdraw, session },
    complain: told,
  });
}
