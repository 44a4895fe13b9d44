import type { Logger } from "../log/logger.ts";
import type { ByteStream } from "../platform/stream.ts";
import { type CommandHandler, proxySession } from "./proxy.ts";

export interface ToolstackOptions {
  readonly log: Logger;
  /** A new connection to QEMU's monitor for the toolstack, not yet greeted. */
  connect(): ByteStream;
  readonly takeOver?: ReadonlyMap<string, CommandHandler>;
}

/** A session of the toolstack with QEMU, as {@link VchanServerOptions.session} wants it. */
export async function toolstackSession(
  toolstack: ByteStream,
  { log, connect, takeOver }: ToolstackOptions,
): Promise<boolean> {
  let qemu: ByteStream;
  try {
    qemu = connect();
  } catch (error) {
    log.warn({ error: String(error) }, `QMP: no connection to QEMU for the toolstack: ${error}`);
    toolstack.close();
    return false;
  }
  const { endedBy, error, commands } = await proxySession(toolstack, qemu, takeOver);
  if (endedBy === "toolstack") log.debug({ commands }, `QMP: a session of ${commands} commands ended`);
  else log.warn({ commands, endedBy }, `QMP: a session was cut by ${endedBy}: ${error?.message ?? "end"}`);
  return endedBy === "toolstack";
}
