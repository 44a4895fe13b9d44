/**
 * NICs that are taken from a running guest.
 *
 * libxl gives each NIC twice: to the guest as a PV device, and to the stub domain for the one that QEMU
 * emulates. `xl network-detach` takes away the guest's alone (tools/libs/light/libxl_nic.c knows no stub
 * domain), and without what is here frames would go on through the other. The same holds where the stub
 * domain's own vif goes: the guest then sees a cable that is pulled, and not a network that says nothing.
 *
 * QEMU keeps the NIC itself, and it is in the state that QEMU saves; libxl saves the guest's configuration without
 * it, and no QEMU that is started by that takes the state. So a guest that has such a NIC is not saved.
 *
 * An emulated NIC does not come back with `xl network-attach`, as it does not with QEMU in dom0: that gives the
 * guest a PV one.
 */
import { BadNode } from "../frontends/errors.ts";
import type { Joint } from "../frontends/net/joint.ts";
import { readBackend } from "../frontends/xenbus.ts";
import type { Logger } from "../log/logger.ts";
import { QmpCommandError, QmpConnectionClosed, QmpFramingError } from "../qmp/errors.ts";
import { isJsonObject } from "../qmp/json.ts";
import type { Watch, XenstoreClient } from "../xenstore/client.ts";
import { isOutOfSight } from "../xenstore/errors.ts";
import { Looks } from "../xenstore/looks.ts";
import type { Qmp } from "./fdsets.ts";

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

  constructor(private readonly context: NicContext) {
    this.#links = context.nics.map((nic) => new Link(context, nic));
  }

  /** Sets a watch for each NIC. Throws {@link XenstoreFailure}. */
  async follow(): Promise<void> {
    await Promise.all(this.#links.map((link) => link.follow()));
  }

  /** Why the guest cannot be saved: the state would hold a NIC that libxl does not know any more. */
  async keepsFromSaving(): Promise<string | undefined> {
    const detached = this.#links.filter((link) => link.detached);
    const kept = detached.length === 0 ? [] : await this.#emulated();
    const names = detached.filter(({ device }) => kept.includes(device)).map(({ label }) => label);
    return names.length === 0
      ? undefined
      : `${names.join(", ")}: detached in dom0, and the guest has it emulated still, so that it could not be restored; shut the guest down instead`;
  }

  /** QEMU's ids of the devices that it was given on its command line, but for those that a guest's PV drivers have unplugged. */
  async #emulated(): Promise<readonly string[]> {
    const answer = await this.context.qmp.execute("qom-list", { path: "/machine/peripheral" });
    if (!Array.isArray(answer)) throw new QmpFramingError("qom-list: the answer is no list");
    return answer.flatMap((item) => (isJsonObject(item) && typeof item.name === "string" ? item.name : []));
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
  #detached = false;
  #stopped = false;
  readonly #looks = new Looks(() => this.#look());

  constructor(
    private readonly context: NicContext,
    private readonly nic: JoinedNic,
  ) {}

  /** Whether dom0 has taken the guest's NIC away: libxl knows no such NIC of the guest any more. */
  get detached(): boolean {
    return this.#detached;
  }

  /** QEMU's id of the emulated NIC, which libxl chooses so (tools/libs/light/libxl_dm.c). */
  get device(): string {
    return `nic${this.nic.joint.nic.devid}`;
  }

  get label(): string {
    const { devid, mac } = this.nic.joint.nic;
    return `NIC ${devid} (${mac})`;
  }

  /** To be called when QEMU takes commands: a joint that has ended before is not forgotten. */
  async follow(): Promise<void> {
    void this.nic.joint.ended.then(() => this.#takeDown(undefined));
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
    if (this.#stopped || this.#detached) this.#unwatch();
  }

  /** The watch goes with the connection: taking it back waits for xenstored, which may be why everything ends. */
  stop(): void {
    this.#stopped = true;
  }

  #unwatch(): void {
    void this.#watch?.stop().catch(() => {});
  }

  async #look(): Promise<void> {
    if (this.#detached || this.#stopped) return;
    try {
      // libxl writes 0 first, and then removes it all.
      if ((await this.#online()) === "1") this.#attached = true;
      else if (this.#attached) {
        this.#detached = true;
        this.#unwatch();
        await this.#takeDown("it was detached in dom0");
      }
    } catch (error) {
      this.context.log.debug({}, `NIC ${this.nic.joint.nic.devid}: ${String(error)}`);
    }
  }

  async #online(): Promise<string | undefined> {
    try {
      return await this.context.store.readText(`${this.#path}/online`);
    } catch (error) {
      if (isOutOfSight(error)) return undefined;
      throw error;
    }
  }

  /** Once: cuts the joint, which logs where that was not the reason, and pulls the guest's cable. */
  async #takeDown(why: string | undefined): Promise<void> {
    if (this.#down || this.#stopped) return;
    this.#down = true;
    const { netdev, joint } = this.nic;
    if (why !== undefined) {
      this.context.log.warn(
        { nic: joint.nic.devid },
        `${this.label}: ${why}, the guest's emulated link goes down`,
      );
    }
    const [, pulled] = await Promise.all([joint.tearDown(), this.#pullCable(netdev)]);
    // Where QEMU has let go of it, the guest has unplugged it.
    if (why === undefined && pulled && !this.#stopped)
      this.context.complain(
        `${this.label}: our frontend is gone, as after \`xl network-detach\` of the stub domain, and the guest's emulated link is down; shut the guest down and start it again`,
      );
  }

  /** Whether QEMU had it and took it down. */
  async #pullCable(netdev: string): Promise<boolean> {
    try {
      await this.context.qmp.execute("set_link", { name: netdev, up: false });
      return true;
    } catch (error) {
      // The guest has unplugged it, or QEMU has ended: then there is no link either.
      if (error instanceof QmpCommandError && error.errorClass === "DeviceNotFound") return false;
      if (this.#stopped || error instanceof QmpConnectionClosed) return false;
      this.context.complain(
        `${this.label}: no frame passes any more, but the guest may still see a link: ${String(error)}; set it down in the guest`,
      );
      return false;
    }
  }
}
