import type { Logger } from "../log/logger.ts";
import type { ByteStream } from "../platform/stream.ts";
import { type CommandRules, proxySession } from "./proxy.ts";

export interface ToolstackOptions extends CommandRules {
  readonly log: Logger;
  /** A new connection to QEMU's monitor for the toolstack, not yet greeted. */
  connect(): ByteStream;
  /** Told what cut a session short, once for each. */
  readonly onCut?: (problem: string) => void;
}

/** A session of the toolstack with QEMU, as {@link VchanServerOptions.session} wants it. */
export async function toolstackSession(
  toolstack: ByteStream,
  { log, connect, onCut = (problem) => log.warn({}, problem), ...rules }: ToolstackOptions,
): Promise<boolean> {
  let qemu: ByteStream;
  try {
    qemu = connect();
  } catch (error) {
    onCut(
      `QMP: no connection to QEMU for the toolstack: ${error}; QEMU hangs or has ended, see its lines above`,
    );
    toolstack.close();
    return false;
  }
  const { endedBy, error, commands } = await proxySession(toolstack, qemu, rules);
  if (endedBy === "toolstack") log.debug({ commands }, `QMP: a session of ${commands} commands ended`);
  else if (endedBy === "qemu") onCut(`QMP: QEMU cut a session of ${commands} commands; see its lines above`);
  else {
    const problem = error?.message ?? "unknown";
    onCut(`QMP: a session of ${commands} commands was cut: ${problem}; the next one starts anew`);
  }
  return endedBy === "toolstack";
}
