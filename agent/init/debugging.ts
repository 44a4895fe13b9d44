/** What `stubdom.shell=1` opens, loaded for it alone. */
import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import type { Children } from "./children.ts";
import type { Question } from "./control-protocol.ts";
import { serveControl } from "./control-server.ts";
import { serveSessions } from "./sessions.ts";
import { shellSession } from "./shell.ts";

/** A root shell for dom0, offered at `path`, and the socket that the command line asks. */
export function openDebugShell(
  context: { platform: Platform; log: Logger; store: XenstoreClient },
  children: Children,
  path: string,
  answer: (question: Question) => Promise<unknown>,
): void {
  const { platform, log } = context;
  serveControl(platform, log, answer);
  serveSessions(context, "debug shell", path, (client) => shellSession(platform, children, log, client));
}
