/**
 * Consoles. libxl gives a Linux stub domain at least three, and Linux makes hvcN of number N:
 *
 *     0       `console`           log; the kernel's, set up before xenstore, so nothing to wait for
 *     1       `device/console/1`  save: what is written arrives in dom0's /var/lib/xen/qemu-save.T
 *     2       `device/console/2`  restore: has an `output` only when the guest is being restored
 *     3 to 7  `device/console/N`  the guest's serial ports, in order
 */
import type { FileSystem } from "../platform/port.ts";
import { XenstoreError } from "../xenstore/errors.ts";
import type { Operations } from "../xenstore/operations.ts";
import { backendRemedy, type Frontend, XenbusState } from "./xenbus.ts";

export type ConsolePurpose = "log" | "save" | "restore" | "serial";

/** Linux has eight hvc terminals (drivers/tty/hvc/hvc_console.h, HVC_ALLOC_TTY_ADAPTERS). */
export const lastConsole = 7;

export class ConsoleFrontend implements Frontend {
  readonly kind = "console";
  readonly essential = true;

  constructor(
    readonly id: number,
    /** Where dom0 sends what we write, `file:/var/log/xen/...`; `undefined` when nowhere, or not read. */
    readonly output?: string,
  ) {}

  get path(): string {
    return this.id === 0 ? "console" : `device/console/${this.id}`;
  }

  get purpose(): ConsolePurpose {
    return (["log", "save", "restore"] as const)[this.id] ?? "serial";
  }

  /** `/dev/hvc3`. */
  get device(): string {
    return `/dev/hvc${this.id}`;
  }

  get label(): string {
    return `console ${this.id} (${this.purpose})`;
  }

  /**
   * QEMU 8.2 and later in dom0 refuses a console without `output`: its backend never connects. libxl gives every serial
   * port one; the save and restore consoles are waited for where their `output` has been read.
   */
  get awaited(): boolean {
    return this.purpose === "serial" || (this.output !== undefined && this.output !== "");
  }

  static async read(store: Operations, id: number): Promise<ConsoleFrontend> {
    const { path } = new ConsoleFrontend(id);
    return new ConsoleFrontend(id, await store.tryReadText(`${path}/output`));
  }

  /** All eight nodes are there from the start; opening one without a console behind it gives ENODEV. */
  linuxDevices(files: FileSystem): readonly string[] {
    return files.exists(this.device) ? [this.device] : [];
  }

  remedy(_frontendState: number | undefined, backendState: number | undefined): string {
    return backendRemedy(
      backendState,
      "dom0's QEMU for the stub domain runs and can open the console's other end",
    );
  }
}

/**
 * Tells dom0 that console 0 is in use. QEMU from 8.2 on serves a console only once its frontend says so;
 * Linux says it for none but the others, and until somebody does, what is written fills the ring and then
 * holds the kernel up for ever. PID 1's first act.
 *
 * libxl before 4.18 keeps the node to itself; its consoles are served without it, and the refusal is no error.
 */
export async function announcePrimaryConsole(store: Operations): Promise<void> {
  try {
    await store.write("console/state", String(XenbusState.Connected));
  } catch (error) {
    if (!(error instanceof XenstoreError && error.code === "EACCES")) throw error;
  }
}
