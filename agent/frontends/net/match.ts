/**
 * Which netfront belongs to which emulated NIC. Pure.
 *
 * libxl gives each NIC of the guest to the stub domain a second time, as a vif with the same MAC and, for
 * NIC N, the same number: `device/vif/N`. Linux numbers ethN in the order in which the frontends happen to
 * connect, so neither names nor order say anything.
 */
import type { Link } from "./link-messages.ts";

/** A NIC that QEMU emulates. */
export interface EmulatedNic {
  /** N of libxl's `vifT.N-emu` and of `device/vif/N`. */
  readonly devid: number;
  /** `00:16:3e:01:02:03`, in either case. */
  readonly mac: string;
}

/** An interface of the stub domain that may be a NIC's other side. */
export interface Candidate {
  readonly link: Link;
  /** xenstore path of the frontend (`device/vif/N`), `undefined` when sysfs names none; rarely asked for. */
  nodename(): string | undefined;
}

/** No interface belongs to the NIC, or more than one does. */
export class NoMatchError extends Error {
  override readonly name = "NoMatchError";
  constructor(
    readonly nic: EmulatedNic,
    why: string,
    candidates: readonly Candidate[],
  ) {
    const present = candidates.map(
      ({ link, nodename }) => `${link.name} ${link.mac} ${nodename() ?? "no xenbus node"}`,
    );
    super(
      `NIC ${nic.devid} with MAC ${nic.mac}: ${why}; there ${present.length === 0 ? "is no interface" : `are ${present.join(", ")}`}. ` +
        "Give each vif of the guest's configuration a MAC of its own and see in dom0 whether its backend is up",
    );
  }
}

/** Kinds of links that the joint itself makes; a bridge also takes over the MAC of a port. */
const ownKinds: ReadonlySet<string | undefined> = new Set(["tun", "bridge", "macvtap"]);

/** Links that may be the other side of an emulated NIC. */
export function isCandidate(link: Link): boolean {
  return !link.loopback && link.mac !== "" && !ownKinds.has(link.kind);
}

/** The interface of `nic`: by MAC, and among equal MACs by the frontend's number. */
export function matchNic(nic: EmulatedNic, candidates: readonly Candidate[]): Link {
  const mac = nic.mac.toLowerCase();
  const sameMac = candidates.filter((candidate) => candidate.link.mac === mac);
  const [only] = sameMac;
  if (only === undefined) throw new NoMatchError(nic, "no interface has that MAC", candidates);
  if (sameMac.length === 1) return only.link;
  const [sameNode, ...others] = sameMac.filter(({ nodename }) => nodename() === `device/vif/${nic.devid}`);
  if (sameNode === undefined || others.length > 0)
    throw new NoMatchError(
      nic,
      `${sameMac.length} interfaces have that MAC and no single one is device/vif/${nic.devid}`,
      candidates,
    );
  return sameNode.link;
}
