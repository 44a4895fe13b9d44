import { encodeWithin } from "../bytes/text.ts";
import { printable } from "../log/format.ts";
import type { Logger } from "../log/logger.ts";
import { ConnectionLost, RequestTimedOut, XenstoreError } from "../xenstore/errors.ts";
import type { Operations } from "../xenstore/operations.ts";
import type { PhaseTime } from "./phases.ts";

/** Longest text that is written to one node, in bytes: xenstored's default for all of a guest's node is 2048. */
const longestText = 1900;

/**
 * What dom0 can see of the agent, under `/local/domain/S/device-model/T/agent/`:
 *
 *     version           the agent's
 *     phase             the phase that has begun last, or `failed`, or `ended`
 *     phases/<name>     when each began, milliseconds since the stub domain's kernel booted
 *     waited            milliseconds for which there was nothing to do but to wait for a device that QEMU needs
 *     qemu/pid, exit    QEMU's process, and how it ended
 *     memory            KiB available of KiB in all, and the least seen
 *     error             the last error: thing, value, remedy
 *
 * Only the stub domain and dom0 may read it: the guest that it serves is not trusted.
 *
 * Writes are sent in order and not waited for, best in the background of all other requests; one that fails is
 * logged once. What must have arrived before the machine ends is waited for with {@link flush}.
 */
export class DomainReport {
  #last: Promise<void> = Promise.resolve();
  #complained = false;
  #refused = false;
  #held: ((path: string) => Promise<void>)[] | undefined;

  constructor(
    private readonly store: Operations,
    /** `/local/domain/S/device-model/T/agent` */
    readonly path: string,
    private readonly log: Logger,
    /** Where to what may not be written there: libxl made T's directory ours, if T is the guest that it made us for. */
    private readonly otherwise?: string,
  ) {}

  open(domid: number, version: string): void {
    this.#do((path) => this.store.mkdir(path));
    this.#do((path) => this.store.setPermissions(path, [{ domid, access: "none" }]));
    this.write("version", version);
  }

  phase(time: PhaseTime): void {
    this.write("phase", time.phase);
    this.time(`phases/${time.phase}`, time.began);
  }

  time(node: string, milliseconds: number): void {
    this.#write(node, () => milliseconds.toFixed(1));
  }

  write(node: string, value: string | number): void {
    this.#write(node, () => String(value));
  }

  /** `text` is made when it goes out, and so after the boot where it is held until then. */
  #write(node: string, text: () => string): void {
    this.#do((path) => this.store.write(`${path}/${node}`, encodeWithin(printable(text()), longestText)));
  }

  /** Keeps what is written from now on until {@link release} or {@link flush}: the boot has no time for it. */
  hold(): void {
    this.#held ??= [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const request of held) this.#do(request);
  }

  /** Resolves once everything so far has been answered, or refused. */
  flush(): Promise<void> {
    this.release();
    return this.#last;
  }

  #do(request: (path: string) => Promise<void>): void {
    if (this.#held !== undefined) {
      this.#held.push(request);
      return;
    }
    const elsewhere = (error: unknown): Promise<void> => {
      if (!(error instanceof XenstoreError) || this.otherwise === undefined) throw error;
      // What was not made cannot be found by those that follow.
      this.#refused ||= error.code === "EACCES";
      if (!this.#refused) throw error;
      return request(this.otherwise);
    };
    const settled = request(this.path)
      .catch(elsewhere)
      .catch((error: unknown) => {
        // Of a connection's end whoever has it tells.
        const lost = error instanceof ConnectionLost || error instanceof RequestTimedOut;
        if (lost || this.#complained) return;
        this.#complained = true;
        this.log.warn({ path: this.path }, `dom0 cannot see the agent's state: ${String(error)}`);
      });
    this.#last = Promise.all([this.#last, settled]).then(() => {});
  }
}
