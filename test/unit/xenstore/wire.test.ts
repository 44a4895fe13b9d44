import { describe, expect, it } from "vitest";
import { concatBytes } from "../../../agent/bytes/bytes.ts";
import { ProtocolError } from "../../../agent/xenstore/errors.ts";
import {
  absolutePathLimit,
  type Codec,
  checkPath,
  encodePacket,
  messages,
  type Packet,
  PacketDecoder,
  payloadLimit,
  relativePathLimit,
} from "../../../agent/xenstore/wire.ts";
import { Random } from "../../fakes/random.ts";
import { type GoldenPacket, goldenPackets } from "../../golden/xenstore-wire.ts";

const latin1 = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));
const hex = (text: string) => Uint8Array.from(Buffer.from(text.replaceAll(" ", ""), "hex"));
const wireBytes = (golden: GoldenPacket) => concatBytes([hex(golden.header), latin1(golden.payload)]);
const codecOf = (golden: GoldenPacket) => messages[golden.type][golden.side] as Codec<unknown>;
const asPacket = ({ type, requestId, transactionId, payload }: GoldenPacket): Packet => ({
  type,
  requestId,
  transactionId,
  payload: latin1(payload),
});

/** All packets of `stream` when it arrives in the given pieces. */
function decodeInPieces(pieces: Iterable<Uint8Array>): Packet[] {
  const decoder = new PacketDecoder();
  return [...pieces].flatMap((piece) => decode(decoder, piece));
}

function decode(decoder: PacketDecoder, piece: Uint8Array): Packet[] {
  const packets: Packet[] = [];
  decoder.decode(piece, (packet) => packets.push(packet));
  return packets;
}

function header(type: number, length: number): Uint8Array {
  const bytes = new Uint8Array(16);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, type, true);
  view.setUint32(12, length, true);
  return bytes;
}

describe("the golden table", () => {
  for (const golden of goldenPackets) {
    const title = `${golden.type} ${golden.side} ${JSON.stringify(golden.payload)}`;
    it(`encodes ${title}`, () => {
      const { type, requestId, transactionId } = golden;
      const payload = codecOf(golden).encode(golden.body);
      expect(encodePacket({ type, requestId, transactionId, payload })).toEqual(wireBytes(golden));
    });
    it(`decodes ${title}`, () => {
      const [packet, ...more] = decodeInPieces([wireBytes(golden)]);
      expect(more).toEqual([]);
      expect(packet).toEqual(asPacket(golden));
      expect(codecOf(golden).decode(latin1(golden.payload))).toEqual(golden.body);
    });
  }

  it("has both sides of every message, as far as it has them", () => {
    const covered = new Set(goldenPackets.map((golden) => `${golden.type} ${golden.side}`));
    for (const name of Object.keys(messages)) {
      expect(covered).toContain(`${name} reply`);
      if (name !== "watchEvent" && name !== "error") expect(covered).toContain(`${name} request`);
    }
  });
});

describe("the packet decoder", () => {
  const stream = concatBytes(goldenPackets.map(wireBytes));
  const expected = goldenPackets.map(asPacket);

  it("reads the whole stream at once", () => {
    expect(decodeInPieces([stream])).toEqual(expected);
  });

  it("reads it byte by byte", () => {
    expect(decodeInPieces(Array.from(stream, (byte) => Uint8Array.of(byte)))).toEqual(expected);
  });

  it("reads it in pieces of any size, fifty times", () => {
    for (let seed = 1; seed <= 50; seed++) {
      const random = new Random(seed);
      const pieces: Uint8Array[] = [];
      for (let at = 0; at < stream.length; ) {
        const size = random.between(0, 60);
        pieces.push(stream.subarray(at, at + size));
        at += size;
      }
      expect(decodeInPieces(pieces)).toEqual(expected);
    }
  });

  it("keeps trailing bytes for the next packet, and says how many", () => {
    const decoder = new PacketDecoder();
    const [first, second] = goldenPackets.slice(0, 2).map(wireBytes);
    if (first === undefined || second === undefined) throw new Error("golden table too short");
    expect(decode(decoder, concatBytes([first, second.subarray(0, 17)]))).toHaveLength(1);
    expect(decoder.partial).toBe(17);
    expect(decode(decoder, second.subarray(17))).toEqual(expected.slice(1, 2));
    expect(decoder.partial).toBe(0);
  });

  it("gives payloads that do not change with the buffer they were read into", () => {
    const buffer = wireBytes(goldenPackets[5] ?? ({} as GoldenPacket));
    const [packet] = decodeInPieces([buffer]);
    buffer.fill(0xaa);
    expect(packet?.payload).toEqual(latin1(goldenPackets[5]?.payload ?? ""));
  });

  it("takes a payload of the limit", () => {
    const payload = new Uint8Array(payloadLimit).fill(7);
    const packet: Packet = { type: "read", requestId: 1, transactionId: 0, payload };
    expect(decodeInPieces([encodePacket(packet)])).toEqual([packet]);
  });

  for (const [what, bytes, message] of [
    ["a payload over the limit", header(2, payloadLimit + 1), /read packet of 4097 bytes/],
    ["a payload of 4 GiB", header(2, 0xffffffff), /4294967295 bytes/],
    ["the removed type 20", header(20, 0), /unknown type 20/],
    ["a type never given", header(27, 0), /unknown type 27/],
    ["the type that is guaranteed to be invalid", header(0xffff, 0), /unknown type 65535/],
  ] as const) {
    it(`refuses ${what}, however it arrives, and stays refused`, () => {
      expect(() => decodeInPieces([bytes])).toThrow(message);
      expect(() => decodeInPieces(Array.from(bytes, (byte) => Uint8Array.of(byte)))).toThrow(ProtocolError);
      const decoder = new PacketDecoder();
      expect(() => decode(decoder, bytes)).toThrow(ProtocolError);
      expect(() => decode(decoder, stream)).toThrow(ProtocolError);
    });
  }

  it("yields what came whole before a bad packet", () => {
    const seen: Packet[] = [];
    const decoder = new PacketDecoder();
    expect(() => {
      decoder.decode(concatBytes([stream, header(99, 0)]), (packet) => seen.push(packet));
    }).toThrow(ProtocolError);
    expect(seen).toEqual(expected);
  });

  it("refuses to encode a payload over the limit", () => {
    const payload = new Uint8Array(payloadLimit + 1);
    expect(() => encodePacket({ type: "write", requestId: 1, transactionId: 0, payload })).toThrow(/4097/);
  });
});

describe("malformed payloads", () => {
  for (const [codec, payload] of [
    [messages.directory.reply, "768"],
    [messages.directory.reply, "768\x00769"],
    [messages.directory.request, "a"],
    [messages.directory.request, "a\0b\0"],
    [messages.directory.request, "\0"],
    [messages.getPermissions.reply, ""],
    [messages.getPermissions.reply, "x5\0"],
    [messages.getPermissions.reply, "r\0"],
    [messages.getPermissions.reply, "r-1\0"],
    [messages.getPermissions.reply, "r65536\0"],
    [messages.getPermissions.reply, "r5"],
    [messages.setPermissions.request, "/a\0"],
    [messages.write.request, "a"],
    [messages.write.reply, ""],
    [messages.write.reply, "OK"],
    [messages.write.reply, "NO\0"],
    [messages.transactionStart.reply, "\0"],
    [messages.transactionStart.reply, "4294967296\0"],
    [messages.transactionStart.reply, "0x10\0"],
    [messages.transactionStart.request, "1\0"],
    [messages.transactionEnd.request, "X\0"],
    [messages.isDomainIntroduced.reply, "true\0"],
    [messages.isDomainIntroduced.request, "007\0"],
    [messages.watchEvent.reply, "device\0"],
    [messages.watchEvent.reply, "device\0w1\0more\0"],
    [messages.watchEvent.reply, "device\0w1"],
    [messages.directoryPart.reply, ""],
    [messages.directoryPart.reply, "\0"],
    [messages.directoryPart.reply, "1\0a\0\0b\0"],
    [messages.directoryPart.request, "/a\0-1\0"],
    [messages.error.reply, "ENOENT"],
    [messages.error.reply, ""],
  ] as [Codec<unknown>, string][]) {
    it(`refuses ${JSON.stringify(payload)}`, () => {
      expect(() => codec.decode(latin1(payload))).toThrow(ProtocolError);
    });
  }

  it("refuses to encode a string with a NUL inside", () => {
    expect(() => messages.watch.request.encode({ path: "a", token: "b\0c" })).toThrow(ProtocolError);
  });
});

describe("paths", () => {
  for (const path of ["/", "a", "/a/b", "device/vbd/51712", "@releaseDomain", "a-b_c/D9"]) {
    it(`takes ${path}`, () => expect(checkPath(path)).toBe(path));
  }
  for (const path of ["", "//", "/a/", "a//b", "a b", "a\0b", "é", "a/../b", "a.b"]) {
    it(`refuses ${JSON.stringify(path)}`, () => expect(() => checkPath(path)).toThrow(ProtocolError));
  }
  it("takes the longest, not one byte more", () => {
    const absolute = `/${"a".repeat(absolutePathLimit - 1)}`;
    const relative = "a".repeat(relativePathLimit);
    expect(checkPath(absolute)).toBe(absolute);
    expect(checkPath(relative)).toBe(relative);
    expect(() => checkPath(`${absolute}a`)).toThrow(/at most 3072/);
    expect(() => checkPath(`${relative}a`)).toThrow(/at most 2048/);
  });
});
