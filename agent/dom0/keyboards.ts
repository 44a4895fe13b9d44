/**
 * The PV keyboard of a guest with a stub domain.
 *
 * libxl (tools/libs/light/libxl_create.c, Xen 4.17 to 4.20) gives one to every HVM guest but those with `vkb_device=0`, for
 * the QEMU in dom0 that serves the guest to be its backend; with a stub domain there is none. A Linux with a driver for
 * it waits for it at each boot, 30 s (drivers/xen/xenbus/xenbus_probe_frontend.c). So the helper says in the backend's
 * place that nobody comes: for what is closed Linux does not wait. Windows' xenvkbd waits for a state that never comes, with
 * this and without; `vkb_device=0` is for it.
 */
import { parseState, XenbusState } from "../frontends/xenbus.ts";
import type { Logger } from "../log/logger.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import type { Operations } from "../xenstore/operations.ts";
import { NodeWatch } from "./xenstore.ts";

/** `vkb=` makes more than one. */
const mostKeyboards = 16;

/** Follows the keyboards of one guest whose QEMU is in a stub domain. All nodes that are read here are dom0's own. */
export class UnservedKeyboards {
  readonly #directory: string;
  readonly #watch = new NodeWatch();

  constructor(
    private readonly xenstore: XenstoreClient,
    private readonly log: Logger,
    private readonly target: number,
  ) {
    this.#directory = `/local/domain/0/backend/vkbd/${target}`;
  }

  /** Throws {@link XenstoreFailure}. */
  start(): Promise<void> {
    return this.#watch.set(this.xenstore, this.#directory, (path) => {
      if (path === this.#directory || path.endsWith("/state"))
        void this.#look().catch((error: unknown) => this.#failed(error));
    });
  }

  /** Idempotent. */
  stop(): void {
    this.#watch.stop();
  }

  async #look(): Promise<void> {
    for (const name of (await this.xenstore.tryDirectory(this.#directory)).slice(0, mostKeyboards)) {
      const node = `${this.#directory}/${name}/state`;
      if (await this.xenstore.transaction((tx) => close(tx, node)))
        this.log.info({}, `domain ${this.target}: its PV keyboard is closed, for nobody serves it`);
    }
  }

  #failed(error: unknown): void {
    if (!this.#watch.stopped) this.log.error({}, `domain ${this.target}: its PV keyboard: ${String(error)}`);
  }
}

/** Whether it was there for a backend to take it. */
async function close(tx: Operations, node: string): Promise<boolean> {
  if (parseState(node, await tx.tryReadText(node)) !== XenbusState.Initialising) return false;
  await tx.write(node, String(XenbusState.Closed));
  return true;
}
