/**
 * The xenstore wire protocol: a pure codec, both directions.
 *
 * Sources: xen/include/public/io/xs_wire.h (numbers, limits) and docs/misc/xenstore.txt (payloads).
 *
 * A packet, all numbers in the byte order of the machine (little-endian on x86):
 *
 *       0        4        8        12       16              16 + len
 *       +--------+--------+--------+--------+----- ... -----+
 *       | type   | req_id | tx_id  | len    | payload       |     len <= 4096
 *       +--------+--------+--------+--------+----- ... -----+
 *
 * A reply repeats type, req_id and tx_id of its request; a refusal has type ERROR and an errno's name as
 * its payload. WATCH_EVENT alone comes unasked, and its req_id and tx_id mean nothing: Linux's
 * /dev/xen/xenbus leaves them uninitialised.
 *
 * {@link messages} is the protocol: one row a message, and for each direction the codec of its payload. In
 * the comments there `|` is a NUL byte and `*` means any number, as in xenstore.txt.
 */
import { concatBytes } from "../bytes/bytes.ts";
import { decodeText, encodeText } from "../bytes/text.ts";
import { ProtocolError } from "./errors.ts";

export const headerSize = 16;
/** XENSTORE_PAYLOAD_MAX: xenstored cuts a connection that sends more. */
export const payloadLimit = 4096;
/** XENSTORE_ABS_PATH_MAX and XENSTORE_REL_PATH_MAX, in bytes without the NUL. */
export const absolutePathLimit = 3072;
export const relativePathLimit = 2048;

/** How a payload is written and read. `decode` throws {@link ProtocolError} for anything malformed. */
export interface Codec<T> {
  encode(value: T): Uint8Array;
  decode(payload: Uint8Array): T;
}

export interface Message<Request, Reply> {
  readonly number: number;
  readonly request: Codec<Request>;
  readonly reply: Codec<Reply>;
}

export interface Permission {
  readonly domid: number;
  readonly access: "none" | "read" | "write" | "both";
}

export interface WatchRequest {
  readonly path: string;
  readonly token: string;
  /** Levels below `path` that matter; only with XENSTORE_SERVER_FEATURE_WATCHDEPTH. */
  readonly depth?: number;
}

export interface WatchEvent {
  /** The node that changed; relative when the watch was. */
  readonly path: string;
  readonly token: string;
}

export interface DirectoryPart {
  /** Generation count of the node: two parts belong together only when it is the same. */
  readonly generation: string;
  readonly names: readonly string[];
  /** Bytes of the list that this part covers, to be added to the next offset. */
  readonly size: number;
  /** Nothing follows: the part ended with an empty name. */
  readonly last: boolean;
}

// --- strings ------------------------------------------------------------------------------------------

/** Splits strings that each end with a NUL. */
function strings(payload: Uint8Array, what: string): string[] {
  const found: string[] = [];
  for (let start = 0; start < payload.length; ) {
    const end = payload.indexOf(0, start);
    if (end < 0) throw new ProtocolError(`${what}: a string without its final NUL`);
    found.push(decodeText(payload.subarray(start, end)));
    start = end + 1;
  }
  return found;
}

function encodeStrings(values: readonly string[], what: string): Uint8Array {
  for (const value of values) {
    if (value.includes("\0")) throw new ProtocolError(`${what}: a NUL inside of ${JSON.stringify(value)}`);
  }
  return encodeText(values.length === 0 ? "" : `${values.join("\0")}\0`);
}

/** Exactly `count` strings, or from `count` to `most`. */
function fields(payload: Uint8Array, what: string, count: number, most = count): string[] {
  const found = strings(payload, what);
  if (found.length < count || found.length > most) {
    const wanted = most === count ? `${count}` : `${count} to ${most}`;
    throw new ProtocolError(`${what}: ${found.length} strings where ${wanted} belong`);
  }
  return found;
}

/** A decimal number without sign or leading zeros. */
function number(text: string | undefined, what: string, most: number): number {
  if (text === undefined || !/^(0|[1-9][0-9]{0,9})$/.test(text) || Number(text) > most) {
    throw new ProtocolError(`${what}: ${JSON.stringify(text)} is no number up to ${most}`);
  }
  return Number(text);
}

const domidMost = 0xffff;
const uint32Most = 0xffff_ffff;

// --- paths --------------------------------------------------------------------------------------------

const foreign = /[^A-Za-z0-9\-_@/]/;
/** The directory of the path that was checked last: the next is often beside it, and an expression takes its time. */
let checkedDirectory = "";

/**
 * Checks a path as xenstored will: letters, digits and `-/_@`, no empty element, no final slash, bounded.
 * Special watch paths (`@releaseDomain`) pass.
 */
export function checkPath(path: string): string {
  const limit = path.startsWith("/") ? absolutePathLimit : relativePathLimit;
  if (path.length > limit) {
    throw new ProtocolError(`path ${path.slice(0, 60)}... has ${path.length} bytes, at most ${limit} may be`);
  }
  const name = path.lastIndexOf("/") + 1;
  const directory = path.slice(0, name);
  const wrong =
    name === path.length ||
    (directory === checkedDirectory
      ? foreign.test(path.slice(name))
      : foreign.test(path) || path.includes("//"));
  if (wrong && path !== "/") {
    throw new ProtocolError(
      `path ${JSON.stringify(path)} is not letters, digits and "-_@" between single slashes`,
    );
  }
  checkedDirectory = directory;
  return path;
}

// --- codecs of payloads -------------------------------------------------------------------------------

/** `<text>|`, exactly one string. */
function text(what: string): Codec<string> {
  return {
    encode: (value) => encodeStrings([value], what),
    decode: (payload) => fields(payload, what, 1)[0] ?? "",
  };
}

/** `<path>|` */
const path: Codec<string> = {
  // Every read's: there is no NUL in a checked path.
  encode: (value) => encodeText(`${checkPath(value)}\0`),
  decode: (payload) => checkPath(fields(payload, "path", 1)[0] ?? ""),
};

/** `<value|>`: any bytes, no NUL after them. */
const bytes: Codec<Uint8Array> = {
  encode: (value) => value,
  decode: (payload) => payload,
};

/** `|`, a reserved empty string. */
const reserved: Codec<null> = {
  encode: () => new Uint8Array(1),
  decode(payload) {
    if (payload.length > 1 || payload[0]) throw new ProtocolError("a request without operands has some");
    return null;
  },
};

/** `OK|` */
const ok: Codec<null> = {
  encode: () => encodeText("OK\0"),
  decode(payload) {
    const answer = fields(payload, "reply", 1)[0];
    if (answer !== "OK") throw new ProtocolError(`reply ${JSON.stringify(answer)} where "OK" belongs`);
    return null;
  },
};

/** `T|` or `F|` */
function boolean(what: string): Codec<boolean> {
  return {
    encode: (value) => encodeText(value ? "T\0" : "F\0"),
    decode(payload) {
      const answer = fields(payload, what, 1)[0];
      if (answer !== "T" && answer !== "F") {
        throw new ProtocolError(`${what}: ${JSON.stringify(answer)} where "T" or "F" belongs`);
      }
      return answer === "T";
    },
  };
}

/** `<number>|` in decimal. */
function decimal(what: string, most: number): Codec<number> {
  return {
    encode: (value) => encodeStrings([String(number(String(value), what, most))], what),
    decode: (payload) => number(fields(payload, what, 1)[0], what, most),
  };
}

const domid = decimal("domid", domidMost);

/** `<name>|*` */
const names: Codec<readonly string[]> = {
  encode: (value) => encodeStrings(value, "directory"),
  decode: (payload) => strings(payload, "directory"),
};

/** `<path>|<value|>`: the value is whatever follows the first NUL. */
const pathAndValue: Codec<{ readonly path: string; readonly value: Uint8Array }> = {
  encode: ({ path: node, value }) => concatBytes([path.encode(node), value]),
  decode(payload) {
    const end = payload.indexOf(0);
    if (end < 0) throw new ProtocolError("write: a path without its final NUL");
    return { path: path.decode(payload.subarray(0, end + 1)), value: payload.subarray(end + 1) };
  },
};

const letters = { none: "n", read: "r", write: "w", both: "b" } as const;
const accesses: Readonly<Record<string, Permission["access"]>> = {
  n: "none",
  r: "read",
  w: "write",
  b: "both",
};

function encodePermission({ domid: id, access }: Permission): string {
  return `${letters[access]}${number(String(id), "permission", domidMost)}`;
}

function decodePermission(item: string): Permission {
  const access = accesses[item.charAt(0)];
  if (access === undefined) throw new ProtocolError(`permission ${JSON.stringify(item)} is not n, r, w or b`);
  return { domid: number(item.slice(1), "permission", domidMost), access };
}

/** `<perm-as-string>|+`, the owner first. */
const permissions: Codec<readonly Permission[]> = {
  encode: (value) => encodeStrings(value.map(encodePermission), "permissions"),
  decode(payload) {
    const items = strings(payload, "permissions");
    if (items.length === 0) throw new ProtocolError("permissions: none, where the owner's belong");
    return items.map(decodePermission);
  },
};

/** `<path>|<perm-as-string>|+` */
const pathAndPermissions: Codec<{ readonly path: string; readonly permissions: readonly Permission[] }> = {
  encode: (value) =>
    encodeStrings([checkPath(value.path), ...value.permissions.map(encodePermission)], "permissions"),
  decode(payload) {
    const [node, ...items] = fields(payload, "permissions", 2, Number.POSITIVE_INFINITY);
    return { path: checkPath(node ?? ""), permissions: items.map(decodePermission) };
  },
};

/** `<path>|<offset>|` */
const pathAndOffset: Codec<{ readonly path: string; readonly offset: number }> = {
  encode: ({ path: node, offset }) => encodeStrings([checkPath(node), String(offset)], "directory part"),
  decode(payload) {
    const [node, offset] = fields(payload, "directory part", 2);
    return { path: checkPath(node ?? ""), offset: number(offset, "directory part", uint32Most) };
  },
};

/** `<gencnt>|<name>|*`, and one empty name more when the list is complete. */
const directoryPart: Codec<DirectoryPart> = {
  encode: (part) =>
    encodeStrings([part.generation, ...part.names, ...(part.last ? [""] : [])], "directory part"),
  decode(payload) {
    const [generation, ...rest] = strings(payload, "directory part");
    if (!generation) throw new ProtocolError("directory part: no generation count");
    const last = rest.at(-1) === "";
    const listed = last ? rest.slice(0, -1) : rest;
    if (listed.includes("")) throw new ProtocolError("directory part: an empty name before the end");
    const size = payload.length - payload.indexOf(0) - 1 - (last ? 1 : 0);
    return { generation, names: listed, size, last };
  },
};

/** `<wpath>|<token>|[<depth>|]?` */
const watch: Codec<WatchRequest> = {
  encode: ({ path: node, token, depth }) =>
    encodeStrings([checkPath(node), token, ...(depth === undefined ? [] : [String(depth)])], "watch"),
  decode(payload) {
    const [node, token, depth] = fields(payload, "watch", 2, 3);
    const base = { path: checkPath(node ?? ""), token: token ?? "" };
    return depth === undefined ? base : { ...base, depth: number(depth, "watch depth", uint32Most) };
  },
};

/** `<epath>|<token>|` */
const watchEvent: Codec<WatchEvent> = {
  encode: ({ path: node, token }) => encodeStrings([node, token], "watch event"),
  decode(payload) {
    const [node, token] = fields(payload, "watch event", 2);
    return { path: node ?? "", token: token ?? "" };
  },
};

/** A fixed or bounded number of strings whose meaning is dom0's affair. */
function texts(what: string, least: number, most = least): Codec<readonly string[]> {
  return {
    encode(value) {
      if (value.length < least || value.length > most) {
        throw new ProtocolError(`${what}: ${value.length} strings where ${least} to ${most} belong`);
      }
      return encodeStrings(value, what);
    },
    decode: (payload) => fields(payload, what, least, most),
  };
}

const nothing: Codec<null> = {
  encode() {
    throw new ProtocolError("a message that no client may send");
  },
  decode() {
    throw new ProtocolError("a message that no client may send");
  },
};

// --- the table ----------------------------------------------------------------------------------------

function message<Request, Reply>(
  number: number,
  request: Codec<Request>,
  reply: Codec<Reply>,
): Message<Request, Reply> {
  return { number, request, reply };
}

/** Every message of the protocol. */
export const messages = {
  control: message(0, texts("control", 1, 64), bytes),
  directory: message(1, path, names),
  read: message(2, path, bytes),
  getPermissions: message(3, path, permissions),
  watch: message(4, watch, ok),
  unwatch: message(5, watch, ok),
  transactionStart: message(6, reserved, decimal("transaction id", uint32Most)),
  transactionEnd: message(7, boolean("transaction end"), ok),
  introduce: message(8, texts("introduce", 3), ok),
  release: message(9, domid, ok),
  getDomainPath: message(10, domid, text("domain path")),
  write: message(11, pathAndValue, ok),
  mkdir: message(12, path, ok),
  remove: message(13, path, ok),
  setPermissions: message(14, pathAndPermissions, ok),
  watchEvent: message(15, nothing, watchEvent),
  error: message(16, nothing, text("error")),
  isDomainIntroduced: message(17, domid, boolean("introduced")),
  resume: message(18, domid, ok),
  setTarget: message(19, texts("set target", 2), ok),
  // 20 was RESTRICT, removed.
  /** Never send this from the stub domain: it would take the kernel's own watches away too. */
  resetWatches: message(21, reserved, ok),
  directoryPart: message(22, pathAndOffset, directoryPart),
  getFeature: message(23, texts("get feature", 0, 1), text("feature")),
  setFeature: message(24, texts("set feature", 2), ok),
  getQuota: message(25, texts("get quota", 0, 2), text("quota")),
  setQuota: message(26, texts("set quota", 2, 3), ok),
} as const;

export type MessageName = keyof typeof messages;
export type RequestBody<N extends MessageName> =
  (typeof messages)[N] extends Message<infer Request, unknown> ? Request : never;
export type ReplyBody<N extends MessageName> =
  (typeof messages)[N] extends Message<infer _Request, infer Reply> ? Reply : never;

const namesByNumber = new Map<number, MessageName>(
  (Object.keys(messages) as MessageName[]).map((name) => [messages[name].number, name]),
);

// --- packets ------------------------------------------------------------------------------------------

export interface Packet {
  readonly type: MessageName;
  readonly requestId: number;
  readonly transactionId: number;
  readonly payload: Uint8Array;
}

/** Where a packet's header is put together; in little-endian order, as all of x86 is. */
const headerNumbers = new Uint32Array(headerSize / 4);
const headerBytes = new Uint8Array(headerNumbers.buffer);

export function encodePacket(packet: Packet): Uint8Array {
  const { payload } = packet;
  if (payload.length > payloadLimit) {
    throw new ProtocolError(
      `${packet.type}: a payload of ${payload.length} bytes, at most ${payloadLimit} may be`,
    );
  }
  const whole = new Uint8Array(headerSize + payload.length);
  headerNumbers[0] = messages[packet.type].number;
  headerNumbers[1] = packet.requestId;
  headerNumbers[2] = packet.transactionId;
  headerNumbers[3] = payload.length;
  whole.set(headerBytes);
  whole.set(payload, headerSize);
  return whole;
}

/**
 * Packets out of a stream that may be split anywhere. Holds one packet at the most; a length or a type out
 * of the protocol throws {@link ProtocolError} before anything is allocated for it, and nothing can be
 * decoded after that.
 */
export class PacketDecoder {
  /** What has come of the next packet. */
  #held = new Uint8Array(0);
  /** Of the buffer that was decoded last, which is often the same. */
  #view: DataView = new DataView(this.#held.buffer);

  /** Bytes of a packet that has begun and not ended; 0 between packets. */
  get partial(): number {
    return this.#held.length;
  }

  /**
   * Gives `take` each packet that the first `count` bytes of `chunk` complete. Their payloads are copies: `chunk` may be
   * used again.
   */
  decode(chunk: Uint8Array, take: (packet: Packet) => void, count = chunk.length): void {
    const held = this.#held.length;
    const bytes = held === 0 ? chunk : concatBytes([this.#held, chunk.subarray(0, count)]);
    const end = held + count;
    let at = 0;
    try {
      while (end - at >= headerSize) {
        if (this.#view.buffer !== bytes.buffer) this.#view = new DataView(bytes.buffer);
        const header = this.#view;
        const start = bytes.byteOffset + at;
        const { type, length } = checkHeader(header, start);
        const next = at + headerSize + length;
        if (next > end) break;
        const packet = {
          type,
          requestId: header.getUint32(start + 4, true),
          transactionId: header.getUint32(start + 8, true),
          payload: bytes.slice(at + headerSize, next),
        };
        at = next;
        take(packet);
      }
    } finally {
      if (held > 0 || at < end) this.#held = bytes.slice(at, end);
    }
  }
}

function checkHeader(
  header: DataView,
  start: number,
): { readonly type: MessageName; readonly length: number } {
  const number = header.getUint32(start, true);
  const length = header.getUint32(start + 12, true);
  const type = namesByNumber.get(number);
  if (type === undefined) throw new ProtocolError(`a packet of unknown type ${number}`);
  if (length > payloadLimit) {
    throw new ProtocolError(`a ${type} packet of ${length} bytes, at most ${payloadLimit} may be`);
  }
  return { type, length };
}
