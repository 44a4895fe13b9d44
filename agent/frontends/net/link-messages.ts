/**
 * rtnetlink's messages about network interfaces ("links"), rtnetlink(7) and <linux/if_link.h>. Pure.
 *
 *     ifinfomsg
 *     0        1     2       4        8        12       16
 *     +--------+-----+-------+--------+--------+--------+------------ - - -
 *     | family | pad | type  | index  | flags  | change | attributes
 *     +--------+-----+-------+--------+--------+--------+------------ - - -
 *       u8       u8    u16     s32      u32      u32: which flags a request sets
 */
import { encodeText } from "../../bytes/text.ts";
import {
  decodeAttributes,
  NetlinkFormatError,
  type NetlinkMessage,
  Payload,
  readText,
  readU32,
  typesAsBits,
} from "./netlink.ts";

export const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;

const HEADER = 16;
const AF_UNSPEC = 0;

const IFF_UP = 0x1;
const IFF_LOOPBACK = 0x8;
const IFF_NOARP = 0x80;
const IFF_ALLMULTI = 0x200;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_TXQLEN = 13;
const IFLA_LINKINFO = 18;
const IFLA_EXT_MASK = 29;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
/** Counters are most of a link's message and nobody here reads them. */
const RTEXT_FILTER_SKIP_STATS = 8;

const IFLA_BR_FORWARD_DELAY = 1;
const IFLA_BR_AGEING_TIME = 4;
const IFLA_BR_STP_STATE = 5;
const IFLA_BR_GROUP_FWD_MASK = 9;
const IFLA_BR_MCAST_SNOOPING = 23;
const IFLA_MACVLAN_MODE = 1;
/** The lower interface is this one's alone, and hands it every frame. */
const MACVLAN_MODE_PASSTHRU = 8;
/** Every link-local group but 0 to 2 (STP, pause, LACP), which Linux refuses to let through a bridge. */
const FORWARDED_GROUPS = 0xfff8;

/** IFNAMSIZ without its NUL. */
const NAME_MAX = 15;

/** A network interface as the kernel describes it. */
export interface Link {
  readonly index: number;
  readonly name: string;
  /** Six bytes as `00:16:3e:01:02:03`; empty for an interface without an Ethernet address. */
  readonly mac: string;
  /** Bytes of payload in the longest frame. */
  readonly mtu: number;
  readonly up: boolean;
  readonly loopback: boolean;
  /** Driver's name of itself (`veth`, `tun`, `bridge`), `undefined` for one without, such as netfront. */
  readonly kind: string | undefined;
  /** Index of the bridge that it is a port of. */
  readonly master: number | undefined;
}

/** What to set on an interface; what is left out stays as it is. */
export interface LinkChange {
  readonly up?: boolean;
  readonly arp?: boolean;
  readonly mtu?: number;
  /** MAC, as {@link Link.mac}. */
  readonly address?: string;
  /** Frames that wait to be sent; for a TAP, frames that wait for QEMU to read them. */
  readonly transmitQueue?: number;
  /** Takes multicast frames of every group. */
  readonly allMulticast?: boolean;
  /** Index of the bridge to make it a port of. */
  readonly master?: number;
}

function about(index: number, flags = 0, change = 0): Payload {
  return new Payload(AF_UNSPEC, index, flags, change);
}

function checkName(name: string): string {
  if (!/^[!-.0-9;-~]{1,15}$/.test(name))
    throw new NetlinkFormatError(
      `interface name ${JSON.stringify(name)}: 1 to ${NAME_MAX} printing characters`,
    );
  return name;
}

/** RTM_GETLINK of every interface. */
export function listLinks(): Payload {
  return about(0).number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

/** RTM_GETLINK of one interface. */
export function findLink(name: string): Payload {
  return listLinks().text(IFLA_IFNAME, checkName(name));
}

/** RTM_NEWLINK for an interface that is there already. */
export function changeLink(index: number, change: LinkChange): Payload {
  let flags = 0;
  let changed = 0;
  if (change.up !== undefined) {
    changed |= IFF_UP;
    if (change.up) flags |= IFF_UP;
  }
  if (change.arp !== undefined) {
    changed |= IFF_NOARP;
    if (!change.arp) flags |= IFF_NOARP;
  }
  if (change.allMulticast !== undefined) {
    changed |= IFF_ALLMULTI;
    if (change.allMulticast) flags |= IFF_ALLMULTI;
  }
  const payload = about(index, flags, changed);
  if (change.address !== undefined) payload.octets(IFLA_ADDRESS, macBytes(change.address));
  if (change.mtu !== undefined) payload.number(IFLA_MTU, change.mtu);
  if (change.transmitQueue !== undefined) payload.number(IFLA_TXQLEN, change.transmitQueue);
  if (change.master !== undefined) payload.number(IFLA_MASTER, change.master);
  return payload;
}

/**
 * RTM_NEWLINK for a bridge that is as near to a wire as a bridge gets: no spanning tree, no learning delay,
 * no address table (an age of 0 floods, which with two ports is the other port), no multicast snooping.
 */
export function newBridge(name: string): Payload {
  return newLink(name, "bridge", (bridge) =>
    bridge
      .number(IFLA_BR_FORWARD_DELAY, 0)
      .number(IFLA_BR_AGEING_TIME, 0)
      .number(IFLA_BR_STP_STATE, 0)
      .octets(IFLA_BR_GROUP_FWD_MASK, [FORWARDED_GROUPS & 0xff, FORWARDED_GROUPS >> 8])
      .octets(IFLA_BR_MCAST_SNOOPING, [0]),
  );
}

/** RTM_NEWLINK for a TAP that is one with the interface of index `lower`: what comes in there is read here. */
export function newMacvtap(name: string, lower: number): Payload {
  return newLink(
    name,
    "macvtap",
    (macvtap) => macvtap.number(IFLA_MACVLAN_MODE, MACVLAN_MODE_PASSTHRU),
    (link) => link.number(IFLA_LINK, lower),
  );
}

function newLink(
  name: string,
  kind: string,
  data: (inside: Payload) => void,
  more: (link: Payload) => void = () => {},
): Payload {
  const link = about(0).text(IFLA_IFNAME, checkName(name));
  more(link);
  return link.nest(IFLA_LINKINFO, (information) =>
    information.octets(IFLA_INFO_KIND, encodeText(kind)).nest(IFLA_INFO_DATA, data),
  );
}

/** RTM_DELLINK. */
export function deleteLink(index: number): Payload {
  return about(index);
}

/** What {@link decodeLink} reads. */
const readOfLink = typesAsBits(IFLA_IFNAME, IFLA_MTU, IFLA_ADDRESS, IFLA_LINKINFO, IFLA_MASTER);

/** The interface that an RTM_NEWLINK or RTM_DELLINK message is about. */
export function decodeLink(message: NetlinkMessage): Link {
  const view = linkHeader(message);
  const attributes = decodeAttributes(message.payload.subarray(HEADER), readOfLink);
  const index = view.getInt32(4, true);
  const name = readText(attributes, IFLA_IFNAME);
  const mtu = readU32(attributes, IFLA_MTU);
  if (name === undefined || mtu === undefined)
    throw new NetlinkFormatError(`message about interface ${index} lacks its name or MTU`);
  const address = attributes.get(IFLA_ADDRESS);
  const information = attributes.get(IFLA_LINKINFO);
  const flags = view.getUint32(8, true);
  return {
    index,
    name,
    mac: address?.length === 6 ? macText(address) : "",
    mtu,
    up: (flags & IFF_UP) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    kind: information && readText(decodeAttributes(information), IFLA_INFO_KIND),
    master: readU32(attributes, IFLA_MASTER),
  };
}

/**
 * Index of the interface that `message` says is gone, `undefined` when it says something else. The kernel
 * also sends RTM_DELLINK when a bridge loses a port that lives on; only its family tells the two apart.
 */
export function removedLink(message: NetlinkMessage): number | undefined {
  if (message.type !== RTM_DELLINK) return undefined;
  const view = linkHeader(message);
  return view.getUint8(0) === AF_UNSPEC ? view.getInt32(4, true) : undefined;
}

function linkHeader(message: NetlinkMessage): DataView {
  const { payload } = message;
  if (payload.length < HEADER)
    throw new NetlinkFormatError(`message about an interface has ${payload.length} bytes, needs ${HEADER}`);
  return new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
}

function macText(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += (text === "" ? "" : ":") + (byte < 16 ? "0" : "") + byte.toString(16);
  return text;
}

function macBytes(text: string): Uint8Array {
  if (!/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/i.test(text))
    throw new NetlinkFormatError(
      `MAC ${JSON.stringify(text)}: six bytes in hexadecimal, as in 00:16:3e:01:02:03`,
    );
  return Uint8Array.from(text.split(":"), (byte) => Number.parseInt(byte, 16));
}
