/**
 * Empty CD drives that dom0's QEMU is to serve (`backendtype=qdisk`, libxl's choice for CDs) and never takes up,
 * because to it a drive without a file is none: the backend stays in state 1. When libxl then replaces the drive by
 * one with a medium, it asks the backend to close and waits 10 s in vain; `xl cd-insert` fails, and so does each one
 * after it. Nobody but dom0 may write a backend's state, so that the stub domain cannot help: we say for that QEMU
 * that what it never opened is closed.
 */
import type { Logger } from "../log/logger.ts";
import type { Watch, XenstoreClient } from "../xenstore/client.ts";

/** xenbus_state of Xen's io/xenbus.h. */
const closing = "5";
const closed = "6";

/** Follows the drives of one stub domain. */
export class EmptyDrives {
  readonly #directory: string;
  #watch: Watch | undefined;
  #stopped = false;

  constructor(
    private readonly xenstore: XenstoreClient,
    private readonly log: Logger,
    private readonly domid: number,
  ) {
    this.#directory = `/local/domain/0/backend/qdisk/${domid}`;
  }

  /** Throws {@link XenstoreFailure}. */
  async start(): Promise<void> {
    this.#watch = await this.xenstore.watch(this.#directory, (path) => {
      // Only dom0 writes here: what comes is as much as libxl and QEMU have to say.
      const [, number] = /\/([0-9]{1,10})\/state$/.exec(path) ?? [];
      if (number !== undefined) void this.#look(number).catch((error) => this.#failed(number, error));
    });
    if (this.#stopped) this.stop();
  }

  /** Idempotent. */
  stop(): void {
    this.#stopped = true;
    void this.#watch?.stop().catch(() => {});
  }

  async #look(number: string): Promise<void> {
    const node = `${this.#directory}/${number}`;
    const done = await this.xenstore.transaction(async (tx) => {
      const read = (name: string) => tx.tryReadText(`${node}/${name}`);
      if ((await read("state")) !== closing || (await read("online")) !== "0") return false;
      if ((await read("device-type")) !== "cdrom") return false;
      // `aio:` and `:` as well: a format, and then no file.
      if (/[^:]$/.test((await read("params")) ?? "-")) return false;
      await tx.write(`${node}/state`, closed);
      return true;
    });
    if (done)
      this.log.info({}, `domain ${this.domid}: its empty CD drive ${number} is closed for dom0's QEMU`);
  }

  #failed(number: string, error: unknown): void {
    if (!this.#stopped) this.log.error({}, `domain ${this.domid}: CD drive ${number}: ${String(error)}`);
  }
}
