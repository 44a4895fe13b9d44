import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { nilUuid } from "./format.ts";

/** What saving and restoring in a stub domain work with. */
export interface StateContext {
  readonly platform: Platform;
  readonly xenstore: XenstoreClient;
  readonly log: Logger;
  /** S, this stub domain. */
  readonly domid: number;
  /** T, the guest that it serves. */
  readonly target: number;
}

/** The guest's uuid, from the path that libxl gave it; nil for a guest without one. */
export async function guestUuid(xenstore: XenstoreClient, target: number): Promise<string> {
  const path = await xenstore.tryReadText(`/local/domain/${target}/vm`);
  const found = /^\/vm\/([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})/.exec(path ?? "");
  return found?.[1] ?? nilUuid;
}
