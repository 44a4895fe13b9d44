/**
 * The joint between a NIC that QEMU emulates and the guest's network: QEMU's TAP on one side, the netfront
 * of the same MAC on the other, and nothing of the stub domain's own in between. It has no address, answers
 * no ARP, speaks no IPv6, and sends no frame that the guest or the network did not.
 *
 *     guest <-> QEMU <-> descriptor | tapN ==> ethM | netback in dom0 <-> network
 *                                   |      <==      |
 *
 * `tc` (default): every frame that comes in on one interface is redirected to the other before the stack
 * sees it. A frame that the other side does not take is dropped. No address table, no exempt groups.
 *
 * `bridge`: a bridge with these two ports, without learning and spanning tree. It keeps STP, pause and LACP
 * frames from passing, which Linux allows no bridge to do otherwise.
 *
 * `macvtap`: no TAP of its own, but one that Linux puts onto the netfront. Shorter, but multicast and broadcast
 * frames wait in a queue of their own, so that they may overtake others, and the stack behind the netfront gets
 * to see them too.
 *
 * Checksums and segments: netback hands over packets whose TCP checksum is still blank and which are up to
 * 64 KiB long. The TAP has no virtio header, so it takes neither, and Linux fills in the checksum and cuts
 * the segments on the way to it; QEMU always reads whole frames of at most the MTU.
 *
 * In either kind the interfaces come up only when nothing can pass by the joint.
 */
import type { Logger } from "../../log/logger.ts";
import { type FileSystem, type Sockets, SystemError } from "../../platform/port.ts";
import type { Link } from "./link-messages.ts";
import { type Candidate, type EmulatedNic, isCandidate, matchNic } from "./match.ts";
import {
  changing,
  type Outcome,
  type Request,
  RouteClient,
  RouteError,
  type RoutePlatform,
  redirecting,
} from "./route.ts";

export type JointKind = "tc" | "bridge" | "macvtap";

export interface JointPlatform extends RoutePlatform {
  readonly files: FileSystem;
  readonly sockets: Pick<Sockets, "netlinkRoute" | "openTap">;
}

/**
 * Frames that wait on either side. As many as fit in netback's ring and in the e1000's default one; while
 * the guest is paused they stay, which at about 2.3 KiB each costs 0.6 MiB a NIC and direction.
 */
const QUEUE = 256;

/** No frame is ever meant for it; those for fe:ff:ff:ff:ff:ff are for a bridge of dom0's that has vifs alone. */
const PORT_ADDRESS = "fe:ff:ff:ff:ff:fe";

function tapName(devid: number): string {
  return `tap${devid}`;
}

/** QEMU's interface and its queue. */
interface TapQueue {
  readonly tap: Link;
  readonly descriptor: number;
}

/** How to undo one thing that a joint did; done last to first. */
type Undo = () => Promise<void>;

/** One thing that a joint does. */
interface Step {
  readonly request: Request;
  readonly undo?: Undo;
}

/** One emulated NIC, joined. */
export interface Joint {
  readonly nic: EmulatedNic;
  readonly kind: JointKind;
  /** Interface of the stub domain that leads to the network. */
  readonly front: Link;
  readonly tap: Link;
  /** The TAP's queue, for QEMU to inherit as `-netdev tap,fd=`. */
  readonly descriptor: number;
  /**
   * {@link descriptor} is somebody else's to close from now on: whoever starts QEMU with it closes the
   * agent's copy, and the TAP goes away with QEMU's. Idempotent.
   */
  handedOver(): void;
  /**
   * Ends the joint: nothing passes any more, both interfaces are down. Never rejects; what cannot be undone
   * is logged. Idempotent, also after either interface is gone.
   */
  tearDown(): Promise<void>;
  /** Resolves once the joint has been torn down, whatever the reason. */
  readonly ended: Promise<void>;
}

/** Joins the NICs of one stub domain; holds the netlink socket that all of them use. */
export class NetworkJoiner {
  readonly #platform: JointPlatform;
  readonly #route: RouteClient;
  readonly #kind: JointKind;
  readonly #log: Logger;
  readonly #joints = new Set<Joint>();
  /** Descriptors of TAPs by their names: what {@link prepare} has made and nothing has taken. */
  readonly #prepared = new Map<string, number>();

  constructor(platform: JointPlatform, kind: JointKind, log: Logger) {
    this.#platform = platform;
    this.#route = new RouteClient(platform);
    this.#kind = kind;
    this.#log = log;
  }

  /** The joints that stand. */
  get joints(): ReadonlySet<Joint> {
    return this.#joints;
  }

  /**
   * Makes what needs no netfront, so that {@link joinAll} has less to do: the TAPs, which stay down. One by
   * `macvtap` stands on the netfront and comes later. Throws SystemError.
   */
  prepare(nics: readonly EmulatedNic[]): void {
    if (this.#kind === "macvtap") return;
    for (const { devid } of nics) {
      const name = tapName(devid);
      if (!this.#prepared.has(name)) this.#prepared.set(name, this.#platform.sockets.openTap(name, false));
    }
  }

  /**
   * Joins `nics`, whose frontends are connected, each to the interface of its MAC. All or none: when one
   * fails the others are torn down again. Throws {@link NoMatchError}, {@link RouteError}, SystemError.
   */
  async joinAll(nics: readonly EmulatedNic[]): Promise<Joint[]> {
    const joined: Joint[] = [];
    try {
      this.prepare(nics);
      const links = await this.#route.links();
      const candidates = this.#candidates(links);
      const pairs = nics.map((nic) => ({ nic, front: matchNic(nic, candidates) }));
      for (const { nic, front } of pairs)
        joined.push(await this.#join(nic, front, await this.#tapOf(nic, front, links)));
    } catch (error) {
      await Promise.all(joined.map((joint) => joint.tearDown()));
      this.#dropPrepared();
      throw error;
    }
    return joined;
  }

  /** Tears down every joint and closes the netlink socket. Idempotent. */
  async close(): Promise<void> {
    await Promise.all([...this.#joints].map((joint) => joint.tearDown()));
    this.#dropPrepared();
    this.#route.close();
  }

  #candidates(links: readonly Link[]): Candidate[] {
    const taken = new Set([...this.#joints].map((joint) => joint.front.index));
    return links
      .filter((link) => isCandidate(link) && !taken.has(link.index))
      .map((link) => ({ link, nodename: () => this.#nodename(link) }));
  }

  /** What sysfs calls the xenbus device behind `link`: `device/vif/N`. */
  #nodename(link: Link): string | undefined {
    try {
      const bytes = this.#platform.files.readFile(`/sys/class/net/${link.name}/device/nodename`, 4096);
      return String.fromCharCode(...bytes).trim();
    } catch (error) {
      if (error instanceof SystemError && error.code === "ENOENT") return undefined;
      throw error;
    }
  }

  async #join(nic: EmulatedNic, front: Link, { tap, descriptor }: TapQueue): Promise<Joint> {
    // From here on the joint looks after itself, also when an interface goes away half-way through.
    const undo: Undo[] = [];
    const joint = this.#watched(nic, front, tap, descriptor, undo);
    try {
      const links = [tap, front];
      const silencing = links.map((link) => this.#silencing(link, front.mtu));
      if (this.#kind === "tc") await this.#carryOut([...silencing, ...this.#redirections(tap, front)], undo);
      else {
        await this.#carryOut(silencing, undo);
        if (this.#kind === "bridge") await this.#bridge(nic, tap, front, undo);
        else await this.#passThrough(tap, undo);
      }
      await this.#carryOut(
        links.map((link) => ({
          request: changing(link, { up: true }),
          undo: () => this.#route.change(link, { up: false }),
        })),
        undo,
      );
      if (!this.#joints.has(joint))
        throw new RouteError(`join ${tap.name} to ${front.name}`, "ENODEV", undefined);
    } catch (error) {
      await joint.tearDown();
      // A joint that ended by itself knew nothing of the step that was then under way.
      await this.#undo(nic, undo);
      throw error;
    }
    this.#log.info(
      {
        nic: nic.devid,
        mac: nic.mac,
        tap: tap.name,
        interface: front.name,
        mtu: front.mtu,
        joint: this.#kind,
      },
      `NIC ${nic.devid} (${nic.mac}): ${tap.name} joined to ${front.name} by ${this.#kind}`,
    );
    return joint;
  }

  async #tapOf(nic: EmulatedNic, front: Link, links: readonly Link[]): Promise<TapQueue> {
    const name = tapName(nic.devid);
    if (this.#kind === "macvtap") return this.#newMacvtap(name, front);
    const tap = links.find((link) => link.name === name);
    const descriptor = this.#prepared.get(name);
    if (tap === undefined || descriptor === undefined)
      throw new RouteError(`look up ${name}`, "ENODEV", undefined);
    this.#prepared.delete(name);
    return { tap, descriptor };
  }

  async #newMacvtap(name: string, front: Link): Promise<TapQueue> {
    const tap = await this.#route.createMacvtap(name, front);
    try {
      // QEMU asks such a queue for its header's kind, and takes the headers off itself.
      const descriptor = this.#platform.descriptors.open(`/dev/tap${tap.index}`, { access: "read-write" });
      return { tap, descriptor };
    } catch (error) {
      await this.#route.deleteLink(tap);
      throw error;
    }
  }

  #dropPrepared(): void {
    for (const descriptor of this.#prepared.values()) this.#platform.descriptors.close(descriptor);
    this.#prepared.clear();
  }

  /** The joint as an object, torn down when either interface goes away. */
  #watched(nic: EmulatedNic, front: Link, tap: Link, descriptor: number, undo: Undo[]): Joint {
    let finish: () => void = () => {};
    const ended = new Promise<void>((resolve) => {
      finish = resolve;
    });
    let ours = true;
    const handedOver = () => {
      ours = false;
    };
    const end = async () => {
      for (const stop of watches) stop();
      this.#joints.delete(joint);
      await this.#undo(nic, undo);
      if (ours) this.#platform.descriptors.close(descriptor);
      ours = false;
      this.#log.info(
        { nic: nic.devid, mac: nic.mac },
        `NIC ${nic.devid}: ${tap.name} and ${front.name} parted`,
      );
      finish();
    };
    let ending: Promise<void> | undefined;
    const tearDown = () => {
      ending ??= end();
      return ending;
    };
    const joint: Joint = { nic, kind: this.#kind, front, tap, descriptor, handedOver, tearDown, ended };
    const watches = [
      this.#route.onRemoval(front.index, () => {
        this.#log.warn(
          { nic: nic.devid, interface: front.name },
          `NIC ${nic.devid}: its frontend ${front.name} is gone, the guest's link is cut`,
        );
        void tearDown();
      }),
      // Nothing to warn of: a guest with PV drivers unplugs its emulated NICs.
      this.#route.onRemoval(tap.index, () => {
        this.#log.info(
          { nic: nic.devid, interface: tap.name },
          `NIC ${nic.devid}: QEMU let go of ${tap.name}`,
        );
        void tearDown();
      }),
    ];
    this.#joints.add(joint);
    return joint;
  }

  /** Carries all of `steps` out and notes how to undo what was done; then throws the first refusal. */
  async #carryOut(steps: readonly Step[], undo: Undo[]): Promise<void> {
    let outcomes: readonly Outcome[] = [];
    try {
      outcomes = await this.#route.carryOut(steps.map(({ request }) => request));
    } finally {
      // Without an answer, any of it may have been done.
      for (const [n, step] of steps.entries())
        if (step.undo !== undefined && outcomes[n] === undefined) undo.push(step.undo);
    }
    const refused = outcomes.find((outcome) => outcome !== undefined);
    if (refused !== undefined) throw refused;
  }

  /** While `link` is down: takes from it what would make the stub domain speak on it, sets its sizes. */
  #silencing(link: Link, mtu: number): Step {
    // Our kernel has no IPv6; another one would announce itself on every interface that comes up.
    const noIpv6 = `/proc/sys/net/ipv6/conf/${link.name}/disable_ipv6`;
    if (this.#platform.files.exists(noIpv6)) this.#platform.files.writeFile(noIpv6, "1");
    return { request: changing(link, { up: false, arp: false, mtu, transmitQueue: QUEUE }) };
  }

  #redirections(tap: Link, front: Link): Step[] {
    return [[tap, front] as const, [front, tap] as const].flatMap(([from, to]) => {
      const [place, filter] = redirecting(from, to);
      // One undoes both: the filter goes with its place, also with one that was there before.
      let ended = false;
      const undo = async () => {
        if (!ended) await this.#route.endRedirect(from);
        ended = true;
      };
      return [
        { request: place, undo },
        { request: filter, undo },
      ];
    });
  }

  async #passThrough(tap: Link, undo: Undo[]): Promise<void> {
    // Unlike a TAP it does not go with its last descriptor.
    undo.push(() => this.#route.deleteLink(tap));
    await this.#route.change(tap, { allMulticast: true });
  }

  async #bridge(nic: EmulatedNic, tap: Link, front: Link, undo: Undo[]): Promise<void> {
    const bridge = await this.#route.createBridge(`br${nic.devid}`);
    undo.push(() => this.#route.deleteLink(bridge));
    await this.#carryOut([this.#silencing(bridge, front.mtu)], undo);
    // A bridge keeps for itself what is sent to the address of one of its ports, and netfront's is the guest's.
    undo.push(() => this.#route.change(front, { address: front.mac }));
    for (const port of [tap, front])
      await this.#route.change(port, { address: PORT_ADDRESS, master: bridge.index });
    await this.#route.change(bridge, { up: true });
  }

  /** Takes `steps` back, last to first, and empties the list. */
  async #undo(nic: EmulatedNic, steps: Undo[]): Promise<void> {
    for (let step = steps.pop(); step !== undefined; step = steps.pop()) {
      try {
        await step();
      } catch (error) {
        // The interface went away, and everything on it went with it.
        if (error instanceof RouteError && error.code === "ENODEV") continue;
        this.#log.warn({ nic: nic.devid, error: String(error) }, `NIC ${nic.devid}: ${String(error)}`);
      }
    }
  }
}
