import {
  type Link,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
} from "../../../../agent/frontends/net/link-messages.ts";
import {
  decodeAttributes,
  decodeMessages,
  encodeMessages,
  type NetlinkMessage,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLMSG_DONE,
  NLMSG_ERROR,
  Payload,
  readText,
  readU32,
} from "../../../../agent/frontends/net/netlink.ts";
import {
  RTM_DELQDISC,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
} from "../../../../agent/frontends/net/traffic-messages.ts";
import { type Descriptors, type Sockets, SystemError } from "../../../../agent/platform/port.ts";

/** A link with what nobody needs to spell out left out. */
export type LinkSketch = Pick<Link, "index" | "name"> & Partial<Link>;

const SOCKET = 5000;
const FIRST_TAP = 5100;

/**
 * The kernel as far as rtnetlink shows it: links, and what joins them. It answers in write(2) as Linux does,
 * unless `silent`. `journal` says in words what was asked of it.
 */
export class FakeRouteKernel {
  readonly journal: string[] = [];
  readonly links = new Map<number, Link>();
  /** Descriptors of TAPs by their link's index. */
  readonly taps = new Map<number, number>();
  /** Errno to answer a journal entry with. */
  readonly refusals = new Map<string, number>();
  /** Called before a journal entry is carried out. */
  beforeEntry: (entry: string) => void = () => {};
  /** Takes requests and never answers. */
  silent = false;
  /** Carries requests out, and its answers are lost. */
  unheard = false;
  /** So many dumps are marked as interrupted. */
  interruptedDumps = 0;
  socketClosed = false;
  readonly #datagrams: (Uint8Array | SystemError)[] = [];
  #ready: (() => void) | null = null;
  /** Links that have a place for filters. */
  readonly #places = new Set<number>();
  #nextIndex = 50;

  constructor(links: readonly LinkSketch[]) {
    for (const link of links) this.#add(link);
  }

  readonly sockets: Pick<Sockets, "netlinkRoute" | "openTap"> = {
    netlinkRoute: () => SOCKET,
    openTap: (name, vnetHeader) => {
      if (vnetHeader) throw new Error("a TAP with virtio headers would be handed blank checksums");
      if (this.#named(name) !== undefined) throw new SystemError("EBUSY", "TUNSETIFF", name);
      const index = this.#nextIndex++;
      this.#add({ index, name, mac: "aa:aa:aa:aa:aa:aa", kind: "tun" });
      this.taps.set(index, FIRST_TAP + index);
      return FIRST_TAP + index;
    },
  };

  readonly descriptors: Pick<Descriptors, "open" | "read" | "write" | "close" | "onReadable"> = {
    // A macvtap's queue is a device of its own.
    open: (path) => {
      const index = Number(/^\/dev\/tap(\d+)$/.exec(path)?.[1] ?? Number.NaN);
      if (this.links.get(index)?.kind !== "macvtap") throw new SystemError("ENOENT", "open", path);
      this.taps.set(index, FIRST_TAP + index);
      return FIRST_TAP + index;
    },
    read: (_fd, into) => {
      const next = this.#datagrams.shift();
      if (next === undefined) return null;
      if (next instanceof SystemError) throw next;
      into.set(next);
      return next.length;
    },
    write: (_fd, bytes) => {
      for (const message of decodeMessages(bytes)) this.#carryOut(message);
      return bytes.length;
    },
    close: (fd) => {
      if (fd === SOCKET) this.socketClosed = true;
      else this.#closeTap(fd);
    },
    onReadable: (_fd, ready) => {
      this.#ready = ready;
    },
  };

  /** Whether a descriptor is one of ours. */
  has(fd: number): boolean {
    return fd === SOCKET || [...this.taps.values()].includes(fd);
  }

  /** Puts `datagram` into the socket and wakes its reader. */
  say(datagram: Uint8Array | SystemError): void {
    this.#datagrams.push(datagram);
    this.#ready?.();
  }

  /** Takes a link away as `xl network-detach` does, telling listeners unless that is lost. */
  remove(name: string, how: "told" | "lost" = "told"): void {
    const link = this.#named(name);
    if (link === undefined) throw new Error(`no link ${name}`);
    this.links.delete(link.index);
    if (how === "lost") this.say(new SystemError("ENOBUFS", "read", "netlink"));
    else this.say(encodeMessages([{ type: RTM_DELLINK, flags: 0, sequence: 0, payload: encodeLink(link) }]));
  }

  #closeTap(fd: number): void {
    const index = fd - FIRST_TAP;
    if (this.taps.get(index) !== fd) throw new Error(`close of descriptor ${fd}, which is not open`);
    this.taps.delete(index);
    this.links.delete(index);
  }

  #add(sketch: LinkSketch): void {
    this.links.set(sketch.index, {
      mac: "",
      mtu: 1500,
      up: false,
      loopback: false,
      kind: undefined,
      master: undefined,
      ...sketch,
    });
  }

  #named(name: string | undefined): Link | undefined {
    return [...this.links.values()].find((link) => link.name === name);
  }

  #carryOut(message: NetlinkMessage): void {
    const entry = this.#describe(message);
    this.journal.push(entry);
    this.beforeEntry(entry);
    if (this.silent) return;
    const errno = this.refusals.get(entry) ?? this.#errno(message);
    if (errno !== 0) this.#answer(message, NLMSG_ERROR, new Payload(-errno));
    else if (message.type === RTM_GETLINK) this.#tellLinks(message);
    else if ((message.flags & NLM_F_ACK) !== 0) this.#answer(message, NLMSG_ERROR, new Payload(0));
  }

  #tellLinks(message: NetlinkMessage): void {
    const dump = (message.flags & NLM_F_DUMP) === NLM_F_DUMP;
    const name = readText(attributesOf(message), 3);
    const told = [...this.links.values()].filter((link) => dump || link.name === name);
    const flags = this.interruptedDumps > 0 ? NLM_F_DUMP_INTR : 0;
    this.interruptedDumps--;
    for (const link of told) this.#answer(message, RTM_NEWLINK, encodeLink(link), flags);
    this.#answer(message, dump ? NLMSG_DONE : NLMSG_ERROR, new Payload(0));
  }

  #answer({ sequence }: NetlinkMessage, type: number, payload: Payload, flags = 0): void {
    if (this.unheard) return;
    this.#datagrams.push(encodeMessages([{ type, flags, sequence, payload }]));
  }

  /** ENODEV for what is not there, and the change itself where the tests look at it. */
  #errno(message: NetlinkMessage): number {
    const attributes = attributesOf(message);
    const index = viewOf(message).getInt32(4, true);
    if (message.type === RTM_GETLINK) {
      const dump = (message.flags & NLM_F_DUMP) === NLM_F_DUMP;
      return dump || this.#named(readText(attributes, 3)) ? 0 : 19;
    }
    if (message.type === RTM_NEWLINK && (message.flags & NLM_F_CREATE) !== 0) {
      const about = decodeAttributes(attributes.get(18) ?? new Uint8Array(0));
      const kind = readText(about, 1) ?? "bridge";
      this.#add({ index: this.#nextIndex++, name: readText(attributes, 3) ?? "", kind });
      return 0;
    }
    const link = this.links.get(index);
    if (link === undefined) return 19;
    if (message.type === RTM_NEWTFILTER && !this.#places.has(index)) return 2;
    if (message.type === RTM_NEWQDISC) this.#places.add(index);
    if (message.type === RTM_DELQDISC) this.#places.delete(index);
    if (message.type === RTM_DELLINK) this.links.delete(index);
    const change = viewOf(message).getUint32(12, true);
    if (message.type === RTM_NEWLINK && (change & 1) !== 0)
      this.links.set(index, { ...link, up: (viewOf(message).getUint32(8, true) & 1) !== 0 });
    return 0;
  }

  #describe(message: NetlinkMessage): string {
    const index = viewOf(message).getInt32(4, true);
    const name = this.links.get(index)?.name ?? `#${index}`;
    const attributes = attributesOf(message);
    switch (message.type) {
      case RTM_GETLINK:
        return `get ${readText(attributes, 3) ?? "all"}`;
      case RTM_DELLINK:
        return `delete ${name}`;
      case RTM_NEWQDISC:
        return `ingress ${name}`;
      case RTM_DELQDISC:
        return `no ingress ${name}`;
      case RTM_NEWTFILTER:
        return `redirect ${name} > ${this.links.get(redirectTarget(attributes))?.name}`;
      case RTM_NEWLINK:
        return (message.flags & NLM_F_CREATE) !== 0
          ? `new ${readText(attributes, 3)}`
          : `set ${name}${this.#describeChange(message)}`;
      default:
        return `type ${message.type}`;
    }
  }

  #describeChange(message: NetlinkMessage): string {
    const attributes = attributesOf(message);
    const flags = viewOf(message).getUint32(8, true);
    const changed = viewOf(message).getUint32(12, true);
    let text = "";
    if (changed & 0x01) text += flags & 0x01 ? " up" : " down";
    if (changed & 0x200) text += flags & 0x200 ? " allmulti" : " somemulti";
    if (changed & 0x80) text += flags & 0x80 ? " noarp" : " arp";
    const address = attributes.get(1);
    if (address !== undefined) text += ` address ${Buffer.from(address).toString("hex")}`;
    for (const [label, type] of [
      ["mtu", 4],
      ["queue", 13],
    ] as const)
      if (attributes.has(type)) text += ` ${label} ${readU32(attributes, type)}`;
    const master = readU32(attributes, 10);
    if (master !== undefined) text += ` master ${this.links.get(master)?.name}`;
    return text;
  }
}

function viewOf({ payload }: NetlinkMessage): DataView {
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
}

function attributesOf(message: NetlinkMessage): ReturnType<typeof decodeAttributes> {
  const trafficControl = message.type >= RTM_NEWQDISC;
  return decodeAttributes(message.payload.subarray(trafficControl ? 20 : 16));
}

/** Down the nest OPTIONS, ACT, 1, OPTIONS, PARMS of a filter to the index at its end. */
function redirectTarget(filter: ReturnType<typeof decodeAttributes>): number {
  let attributes = filter;
  for (const type of [2, 7, 1, 2]) attributes = decodeAttributes(attributes.get(type) ?? new Uint8Array());
  const parameters = attributes.get(2) ?? new Uint8Array(28);
  return new DataView(parameters.buffer, parameters.byteOffset).getUint32(24, true);
}

function encodeLink(link: Link): Payload {
  const mac = link.mac === "" ? [] : link.mac.split(":").map((byte) => Number.parseInt(byte, 16));
  const flags = (link.up ? 1 : 0) | (link.loopback ? 8 : 0);
  const payload = new Payload(0, link.index, flags, 0).text(3, link.name).number(4, link.mtu).octets(1, mac);
  const { kind, master } = link;
  if (kind !== undefined) payload.nest(18, (information) => information.text(1, kind));
  if (master !== undefined) payload.number(10, master);
  return payload;
}
