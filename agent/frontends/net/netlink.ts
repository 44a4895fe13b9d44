/**
 * Netlink's messages and attributes, as netlink(7) and rtnetlink(7) lay them out. Pure: bytes in, bytes out.
 *
 *     one datagram = messages, each padded to 4 bytes
 *
 *     0        4      6       8          12       16
 *     +--------+------+-------+----------+--------+---------------- - - -
 *     | length | type | flags | sequence | port   | payload
 *     +--------+------+-------+----------+--------+---------------- - - -
 *       u32      u16    u16     u32        u32      length - 16 bytes
 *
 *     payload = a header that `type` tells, then attributes, each padded to 4 bytes
 *
 *     0        2             4
 *     +--------+-------------+----------- - - -
 *     | length | type        | value, or attributes again
 *     +--------+-------------+----------- - - -
 *       u16      u16: bit 15 "nested", bit 14 "big-endian", 14 bits of type
 *
 *     payload of NLMSG_ERROR, which acknowledges too (error 0)
 *
 *     0        4                            20
 *     +--------+----------------------------+------------- - - -
 *     | error  | header of the request      | attributes, only with NLM_F_ACK_TLVS
 *     +--------+----------------------------+------------- - - -
 *       s32, -errno
 *
 * Without NLM_F_CAPPED the whole request stands where its header is drawn. Lengths count their own header
 * and not the padding. Integers are in the machine's byte order: the agent runs on x86, little-endian.
 */
import { decodeText, encodeText } from "../../bytes/text.ts";

export const NLMSG_NOOP = 1;
export const NLMSG_ERROR = 2;
export const NLMSG_DONE = 3;

export const NLM_F_REQUEST = 0x001;
export const NLM_F_ACK = 0x004;
/** In an answer: the table changed while it was being dumped, so it may be inconsistent. */
export const NLM_F_DUMP_INTR = 0x010;
export const NLM_F_DUMP = 0x300;
export const NLM_F_EXCL = 0x200;
export const NLM_F_CREATE = 0x400;
const NLM_F_CAPPED = 0x100;
const NLM_F_ACK_TLVS = 0x200;

const MESSAGE_HEADER = 16;
const ATTRIBUTE_HEADER = 4;
const ATTRIBUTE_TYPE = 0x3fff;
/** Set on a type whose attribute holds attributes, for the few readers that insist on it. */
export const NLA_F_NESTED = 0x8000;
const ATTRIBUTE_LENGTH_MAX = 0xffff;
const NLMSGERR_ATTR_MSG = 1;
/** A sentence in the log; the kernel's own texts are far shorter. */
const KERNEL_TEXT_MAX = 256;

/** The kernel's answer is not laid out as netlink(7) says, or a request cannot be laid out so. */
export class NetlinkFormatError extends Error {
  override readonly name = "NetlinkFormatError";
  constructor(what: string) {
    super(`netlink: ${what}`);
  }
}

/**
 * What we send, as 32-bit words in the byte order of the machine: each part of a message begins at one, and a list of
 * numbers costs less than an array of bytes for each part.
 */
export type Words = readonly number[];

export interface OutgoingMessage extends Omit<NetlinkMessage, "payload"> {
  readonly payload: Payload;
}

/** One message that came. `payload` is a view into the datagram that it was decoded from. */
export interface NetlinkMessage {
  readonly type: number;
  readonly flags: number;
  /** The request's number in its answers; 0 in a notification. */
  readonly sequence: number;
  readonly payload: Uint8Array;
}

/** How the kernel ended a request. */
export interface NetlinkResult {
  /** 0 for success. */
  readonly errno: number;
  /** The kernel's own sentence about the error, when it gave one (extended acknowledgement). */
  readonly text: string | undefined;
}

/** Values of one level of attributes by type; of two with the same type the last, as in the kernel. */
export type Attributes = ReadonlyMap<number, Uint8Array>;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function padded(length: number): number {
  return (length + 3) & ~3;
}

/**
 * Messages as one datagram, which the kernel works through in their order. The port is left 0: the kernel knows who
 * asks.
 */
export function encodeMessages(messages: readonly OutgoingMessage[]): Uint8Array {
  let length = 0;
  for (const { payload } of messages) length += MESSAGE_HEADER / 4 + payload.words.length;
  const all = new Uint32Array(length);
  let at = 0;
  for (const { type, flags, sequence, payload } of messages) {
    const { words } = payload;
    all[at++] = MESSAGE_HEADER + 4 * words.length;
    all[at++] = type | (flags << 16);
    all[at++] = sequence;
    all[at++] = 0;
    for (let n = 0; n < words.length; n++) all[at++] = words[n] as number;
  }
  return new Uint8Array(all.buffer);
}

/**
 * The messages of one datagram, in order. Throws {@link NetlinkFormatError} when one does not fit: a datagram
 * longer than the buffer it was read into is cut by the kernel and ends here too.
 */
export function decodeMessages(datagram: Uint8Array): NetlinkMessage[] {
  const view = viewOf(datagram);
  const messages: NetlinkMessage[] = [];
  for (let offset = 0; offset < datagram.length; ) {
    const rest = datagram.length - offset;
    if (rest < MESSAGE_HEADER)
      throw new NetlinkFormatError(`message header at byte ${offset} is cut: ${rest} of 16 bytes`);
    const length = view.getUint32(offset, true);
    if (length < MESSAGE_HEADER || length > rest)
      throw new NetlinkFormatError(`message at byte ${offset} claims ${length} bytes, ${rest} are there`);
    messages.push({
      type: view.getUint16(offset + 4, true),
      flags: view.getUint16(offset + 6, true),
      sequence: view.getUint32(offset + 8, true),
      payload: datagram.subarray(offset + MESSAGE_HEADER, offset + length),
    });
    offset += padded(length);
  }
  return messages;
}

/**
 * A payload as it is put together: its header's words, then attributes. One list that grows, for a boot waits for it:
 * lists in lists would be copied number by number, once for each level.
 */
export class Payload {
  readonly words: number[];

  constructor(...header: Words) {
    this.words = header as number[];
  }

  number(type: number, value: number): this {
    this.words.push(attributeHeader(type, ATTRIBUTE_HEADER + 4), value);
    return this;
  }

  /** Any bytes, with their padding. */
  octets(type: number, value: ArrayLike<number>): this {
    const { words } = this;
    const { length } = value;
    let word = attributeHeader(type, ATTRIBUTE_HEADER + length);
    for (let n = 0; n < length; n++) {
      if ((n & 3) === 0) {
        words.push(word);
        word = 0;
      }
      word |= (value[n] as number) << (8 * (n & 3));
    }
    words.push(word);
    return this;
  }

  /** With the NUL that NLA_STRING attributes end in. */
  text(type: number, value: string): this {
    return this.octets(type, encodeText(`${value}\0`));
  }

  /** An attribute of whole words, or of what `fill` puts there. */
  nest(type: number, fill: Words | ((inside: this) => void)): this {
    const { words } = this;
    const at = words.length;
    words.push(0);
    if (typeof fill === "function") fill(this);
    else for (let n = 0; n < fill.length; n++) words.push(fill[n] as number);
    words[at] = attributeHeader(type, 4 * (words.length - at));
    return this;
  }
}

function attributeHeader(type: number, length: number): number {
  if (length > ATTRIBUTE_LENGTH_MAX)
    throw new NetlinkFormatError(`attribute ${type} would be ${length} bytes, at most 65535 fit`);
  return length | (type << 16);
}

/** Attribute types as the bits of a number; each is below 32. */
export function typesAsBits(...types: readonly number[]): number {
  return types.reduce((bits, type) => bits | (1 << type), 0);
}

/** @param wanted {@link typesAsBits} of those that somebody reads, of dozens in a message about a link; else all */
export function decodeAttributes(bytes: Uint8Array, wanted?: number): Attributes {
  const attributes = new Map<number, Uint8Array>();
  const { length: end } = bytes;
  // A boot waits for this: one look at an attribute that nobody reads.
  const words = wordsOf(bytes);
  for (let offset = 0; offset < end; ) {
    const rest = end - offset;
    if (rest < ATTRIBUTE_HEADER)
      throw new NetlinkFormatError(`attribute header at byte ${offset} is cut: ${rest} of 4 bytes`);
    const head = words[offset >> 2] as number;
    const length = head & 0xffff;
    const type = (head >>> 16) & ATTRIBUTE_TYPE;
    if (length < ATTRIBUTE_HEADER || length > rest)
      throw new NetlinkFormatError(`attribute ${type} claims ${length} bytes, ${rest} are there`);
    if (wanted === undefined || (type < 32 && (wanted & (1 << type)) !== 0))
      attributes.set(type, bytes.subarray(offset + ATTRIBUTE_HEADER, offset + length));
    offset += (length + 3) & ~3;
  }
  return attributes;
}

/** The whole words of `bytes`, in place where they lie at words, as they do in all that the kernel sends. */
function wordsOf(bytes: Uint8Array): Uint32Array {
  const { buffer, byteOffset, length } = (bytes.byteOffset & 3) === 0 ? bytes : bytes.slice();
  return new Uint32Array(buffer, byteOffset, length >> 2);
}

/** The number in attribute `type`, `undefined` when it is not there; throws when it is not 4 bytes. */
export function readU32(attributes: Attributes, type: number): number | undefined {
  const value = attributes.get(type);
  if (value === undefined) return undefined;
  if (value.length !== 4) throw new NetlinkFormatError(`attribute ${type} has ${value.length} bytes, not 4`);
  return viewOf(value).getUint32(0, true);
}

/** The text in attribute `type` up to its NUL, `undefined` when it is not there. */
export function readText(attributes: Attributes, type: number): string | undefined {
  const value = attributes.get(type);
  if (value === undefined) return undefined;
  const end = value.indexOf(0);
  return decodeText(end < 0 ? value : value.subarray(0, end));
}

/** How an NLMSG_ERROR or NLMSG_DONE message says that its request went. */
export function decodeResult(message: NetlinkMessage): NetlinkResult {
  const { payload } = message;
  if (payload.length < 4)
    throw new NetlinkFormatError(`end of request ${message.sequence} has ${payload.length} bytes, needs 4`);
  const view = viewOf(payload);
  const code = view.getInt32(0, true);
  if (code > 0) throw new NetlinkFormatError(`request ${message.sequence} ended with ${code}, not -errno`);
  const errno = Math.abs(code);
  if ((message.flags & NLM_F_ACK_TLVS) === 0) return { errno, text: undefined };

  let attributesAt = 4;
  if (message.type === NLMSG_ERROR) {
    if (payload.length < 4 + MESSAGE_HEADER)
      throw new NetlinkFormatError(`end of request ${message.sequence} lacks the request's header`);
    const capped = (message.flags & NLM_F_CAPPED) !== 0;
    attributesAt += capped ? MESSAGE_HEADER : padded(view.getUint32(4, true));
  }
  const text = readText(decodeAttributes(payload.subarray(attributesAt)), NLMSGERR_ATTR_MSG);
  return { errno, text: text?.slice(0, KERNEL_TEXT_MAX) };
}
