import type { Logger } from "../log/logger.ts";
import { QmpCommandError } from "../qmp/errors.ts";
import type { CommandHandler } from "../qmp/proxy.ts";

/** Knows something of the guest that no state holds. */
export interface Keeper {
  /** Why the guest cannot be saved, and what to do; `undefined` where it can. */
  keepsFromSaving(): Promise<string | undefined>;
}

/** The command that saves the guest, refused while something that it has could not be restored. */
export function unlessKept(
  command: string,
  handler: CommandHandler,
  keepers: readonly Keeper[],
  log: Pick<Logger, "error">,
): CommandHandler {
  return async (args) => {
    for (const keeper of keepers) {
      const why = await keeper.keepsFromSaving();
      if (why === undefined) continue;
      log.error({}, `${command}: ${why}`);
      throw new QmpCommandError(command, "GenericError", why);
    }
    return handler(args);
  };
}
