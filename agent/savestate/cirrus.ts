import { longAnswer, type QmpClient } from "../qmp/client.ts";
import { QmpFramingError } from "../qmp/errors.ts";
import type { Keeper } from "./keepers.ts";

/** In QEMU's list of what its memory consists of: the card's window is no memory at this moment, each access a call. */
const slowWindow = /: cirrus-linear-io\r?$/m;
/** Milliseconds that a busy QEMU is given; libxl waits longer than that for a state. */
const patience = 40_000;

/**
 * A Cirrus card that has its window in the guest's memory and yet leaves no access to the guest alone: between two parts of a
 * picture that the guest draws by way of the card's registers, or while firmware sets it up. QEMU writes that state and cannot
 * read it: a card that is being loaded takes its memory for the guest's too early, which ends QEMU (hw/i386/xen/xen-hvm.c,
 * `xen_add_to_physmap`, its assertion; in dom0 too). The guest's next steps end it, so that it can be saved a little later.
 */
export class CirrusKeeper implements Keeper {
  constructor(private readonly qmp: Pick<QmpClient, "execute">) {}

  async keepsFromSaving(): Promise<string | undefined> {
    const question = { "command-line": "info mtree -f" };
    const memory = await this.qmp.execute("human-monitor-command", question, patience, longAnswer);
    if (typeof memory !== "string") throw new QmpFramingError("human-monitor-command: the answer is no text");
    return slowWindow.test(memory)
      ? 'the guest is drawing through the registers of its Cirrus card, and no QEMU could restore that; save it again a little later, or give it vga="stdvga"'
      : undefined;
  }
}
