/**
 * NICs that are taken from a running guest.
 *
 * libxl gives each NIC twice: to the guest as a PV device, and to the stub domain for the one that QEMU
 * emulates. `xl network-detach` takes away the guest's alone (tools/libs/light/libxl_nic.c knows no stub
 * domain), and without what is here frames would go on through the other. The same holds where the stub
 * domain's own vif goes: the guest then sees a cable that is pulled, and not a network that says nothing.
 *
 * An emulated NIC does not come back with `xl network-attach`, as it does not with QEMU in dom0: that gives the
 * guest a PV one.
 */
import { BadNode } from "../frontends/errors.ts";
import type { Joint } from "../frontends/net/joint.ts";
import { readBackend } from "../frontends/xenbus.ts";
import type { Logger } from "../log/logger.ts";
import { QmpCommandError, QmpConnectionClosed } from "../qmp/errors.ts";
import type { Watch, XenstoreClient } from "../xenstore/client.ts";
import { XenstoreError } from "../xenstore/errors.ts";
import type { Qmp } from "./fdsets.ts";
import { Looks } from "./looks.ts";

/** One emulated NIC and its way to the network. */
export interface JoinedNic {
  readonly joint: Joint;
  /** QEMU's id of the netdev, `net0`. */
  readonly netdev: string;
}

export interface NicContext {
  readonly store: XenstoreClient;
  readonly qmp: Pick<Qmp, "execute">;
  readonly log: Logger;
  /** The guest. */
  readonly target: number;
  readonly nics: readonly JoinedNic[];
  /** Gets what keeps a link from going down: thing, value, remedy. */
  complain(text: string): void;
}

/** Follows the guest's vifs from the call of {@link follow} on. */
export class NicLinks {
  readonly #links: readonly Link[];

  constructor(context: NicContext) {
    this.#links = context.nics.map((nic) => new Link(context, nic));
  }

  /** Sets a watch for each NIC. Throws {@link XenstoreFailure}. */
  async follow(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.follow()));
  }

  /** Idempotent. The joints stay as they are. */
  stop(): void {
    for (const link of this.#links) link.stop();
  }
}

class Link {
  /** The guest's own vif. */
  #path = "";
  #watch: Watch | undefined;
  /** libxl attaches the guest's vifs only once QEMU runs: what was never there was not detached. */
  #attached = false;
  #down = false;
  #stopped = false;
  readonly #looks = new Looks(() => this.#look());

  constructor(
    private readonly context: NicContext,
    private readonly nic: JoinedNic,
  ) {
    void nic.joint.ended.then(() => this.#takeDown(undefined));
  }

  async follow(): Promise<void> {
    const { store, target } = this.context;
    const { devid } = this.nic.joint.nic;
    // Who serves our vif serves the guest's own. The backend's side of that: the frontend's is the guest's to write.
    const backend = await readBackend(store, `device/vif/${devid}`).catch((error: unknown) => {
      if (error instanceof BadNode) return undefined;
      throw error;
    });
    // Our own has gone meanwhile, and the joint with it.
    if (backend === undefined) return;
    this.#path = `/local/domain/${backend.domid}/backend/vif/${target}/${devid}`;
    // Of the backend's nodes this one: netback writes its state whenever the guest writes its own.
    const watch = await this.context.store.watch(`${this.#path}/online`, () => void this.#looks.take());
    this.#watch = watch;
    if (this.#stopped || this.#down) this.#unwatch();
  }

  /** The watch goes with the connection: taking it back waits for xenstored, which may be why everything ends. */
  stop(): void {
    this.#stopped = true;
  }

  #unwatch(): void {
    void this.#watch?.stop().catch(() => {});
  }

  async #look(): Promise<void> {
    if (this.#down || this.#stopped) return;
    try {
      // libxl writes 0 first, and then removes it all.
      if ((await this.#online()) === "1") this.#attached = true;
      else if (this.#attached) await this.#takeDown("it was detached in dom0");
    } catch (error) {
      this.context.log.debug({}, `NIC ${this.nic.joint.nic.devid}: ${String(error)}`);
    }
  }

  /** What is not there yet may not be read either: its parents are dom0's alone. */
  async #online(): Promise<string | undefined> {
    try {
      return await this.context.store.tryReadText(`${this.#path}/online`);
    } catch (error) {
      if (error instanceof XenstoreError && error.code === "EACCES") return undefined;
      throw error;
    }
  }

  /** Once: cuts the joint, which logs where that was not the reason, and pulls the guest's cable. */
  async #takeDown(why: string | undefined): Promise<void> {
    if (this.#down || this.#stopped) return;
    this.#down = true;
    this.#unwatch();
    const { nic, netdev, joint } = { ...this.nic, nic: this.nic.joint.nic };
    const label = `NIC ${nic.devid} (${nic.mac})`;
    if (why !== undefined) {
      this.context.log.warn({ nic: nic.devid }, `${label}: ${why}, the guest's emulated link goes down`);
    }
    await Promise.all([joint.tearDown(), this.#pullCable(label, netdev)]);
  }

  async #pullCable(label: string, netdev: string): Promise<void> {
    try {
      await this.context.qmp.execute("set_link", { name: netdev, up: false });
    } catch (error) {
      // The guest has unplugged it, or QEMU has ended: then there is no link either.
      if (error instanceof QmpCommandError && error.errorClass === "DeviceNotFound") return;
      if (this.#stopped || error instanceof QmpConnectionClosed) return;
      this.context.complain(
        `${label}: no frame passes any more, but the guest may still see a link: ${String(error)}; set it down in the guest`,
      );
    }
  }
}
