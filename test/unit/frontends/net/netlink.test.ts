import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { concatBytes } from "../../../../agent/bytes/bytes.ts";
import {
  changeLink,
  decodeLink,
  deleteLink,
  findLink,
  type Link,
  listLinks,
  newBridge,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  removedLink,
} from "../../../../agent/frontends/net/link-messages.ts";
import {
  decodeAttributes,
  decodeMessages,
  decodeResult,
  encodeMessages,
  NetlinkFormatError,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  Payload,
  readU32,
  typesAsBits,
} from "../../../../agent/frontends/net/netlink.ts";
import {
  deleteIngress,
  newIngress,
  newRedirect,
  RTM_DELQDISC,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
} from "../../../../agent/frontends/net/traffic-messages.ts";

interface Golden {
  readonly name: string;
  readonly command: string;
  readonly sent: string[];
  readonly received: string[];
}

const goldens: Golden[] = JSON.parse(
  readFileSync(new URL("../../../golden/netlink/rtnetlink.json", import.meta.url), "utf8"),
);

function golden(name: string): { sent: Uint8Array; received: Uint8Array[] } {
  const found = goldens.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no golden "${name}"`);
  const bytes = (hex: string) => new Uint8Array(Buffer.from(hex, "hex"));
  return { sent: bytes(found.sent[0] ?? ""), received: found.received.map(bytes) };
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

/** What the kernel would read. */
function bytes(payload: Payload): Uint8Array {
  return encodeMessages([{ type: 0, flags: 0, sequence: 0, payload }]).subarray(16);
}

/** The interfaces of scripts that `capture.ts` made, by the index the kernel gave them. */
const ETH0 = 3;
const ETH1 = 5;
const BR0 = 7;
const TAP0 = 6;

describe("requests are byte for byte those of ip and tc", () => {
  const change = NLM_F_REQUEST | NLM_F_ACK;
  const create = change | NLM_F_CREATE | NLM_F_EXCL;
  const requests: readonly (readonly [name: string, type: number, flags: number, payload: Payload])[] = [
    ["change link", RTM_NEWLINK, change, changeLink(ETH0, { arp: false, mtu: 1400, transmitQueue: 256 })],
    ["set address", RTM_NEWLINK, change, changeLink(ETH0, { address: "fe:ff:FF:ff:ff:ff" })],
    ["set up", RTM_NEWLINK, change, changeLink(ETH0, { up: true })],
    ["set down", RTM_NEWLINK, change, changeLink(ETH0, { up: false })],
    ["new bridge", RTM_NEWLINK, create, newBridge("br0")],
    ["set master", RTM_NEWLINK, change, changeLink(ETH0, { master: BR0 })],
    ["delete link", RTM_DELLINK, change, deleteLink(BR0)],
    ["new ingress", RTM_NEWQDISC, create, newIngress(ETH0)],
    ["new redirect", RTM_NEWTFILTER, create, newRedirect(ETH0, ETH1, [{ mask: 0, value: 0, offset: 0 }])],
    ["delete ingress", RTM_DELQDISC, change, deleteIngress(ETH0)],
  ];

  it.each(requests)("%s", (name, type, flags, payload) => {
    const { sent } = golden(name);
    const sequence = new DataView(sent.buffer).getUint32(8, true);
    expect(hex(encodeMessages([{ type, flags, sequence, payload }]))).toBe(hex(sent));
  });

  it("looks links up as ip does, but for the counters and the virtual functions it leaves out", () => {
    const mask = (message: Uint8Array) => {
      const payload = decodeMessages(message)[0]?.payload ?? new Uint8Array();
      return new Map([...decodeAttributes(payload.subarray(16))].filter(([type]) => type !== 29));
    };
    const request = (payload: Payload) =>
      encodeMessages([{ type: RTM_GETLINK, flags: NLM_F_REQUEST, sequence: 1, payload }]);
    expect(mask(request(findLink("eth1")))).toEqual(mask(golden("find link").sent));
    expect(mask(request(listLinks()))).toEqual(mask(golden("list links").sent));
  });
});

describe("answers", () => {
  const links = (name: string): Link[] =>
    golden(name)
      .received.flatMap(decodeMessages)
      .filter((message) => message.type === RTM_NEWLINK)
      .map(decodeLink);

  it("decodes a list of links", () => {
    const byName = new Map(links("list links").map((link) => [link.name, link]));
    expect([...byName.keys()].sort()).toEqual(["eth0", "eth1", "lo", "peer0", "peer1", "tap0"]);
    expect(byName.get("eth0")).toEqual({
      index: ETH0,
      name: "eth0",
      mac: "00:16:3e:01:02:03",
      mtu: 1500,
      up: false,
      loopback: false,
      kind: "veth",
      master: undefined,
    });
    expect(byName.get("eth1")).toMatchObject({ index: ETH1, mac: "00:16:3e:01:02:04", mtu: 9000 });
    expect(byName.get("tap0")).toMatchObject({ index: TAP0, kind: "tun" });
    expect(byName.get("lo")).toMatchObject({ loopback: true, kind: undefined });
  });

  it("decodes a bridge's kind", () => {
    expect(links("list links with a bridge").find(({ name }) => name === "br0")).toMatchObject({
      index: BR0,
      kind: "bridge",
    });
  });

  it.each([
    ["set up", 0, undefined],
    ["find link that is missing", 19, undefined],
    ["refused change", 22, "mtu greater than device maximum"],
    ["new bridge that is there", 17, undefined],
    ["new ingress that is there", 17, "Exclusivity flag on, cannot modify"],
    ["delete ingress that is missing", 22, "Invalid handle"],
  ])("%s ends with errno %i and the kernel's words", (name, errno, text) => {
    const end = golden(name)
      .received.flatMap(decodeMessages)
      .find((message) => message.type === NLMSG_ERROR);
    expect(end && decodeResult(end)).toEqual({ errno, text });
  });

  it("reads the kernel's words when the request is not repeated whole, and at the end of a dump", () => {
    const capped = bytes(new Payload(-13, 0, 0, 0, 0).text(1, "because"));
    expect(decodeResult({ type: NLMSG_ERROR, flags: 0x300, sequence: 1, payload: capped })).toEqual({
      errno: 13,
      text: "because",
    });
    const done = bytes(new Payload(-13).text(1, "because"));
    expect(decodeResult({ type: NLMSG_DONE, flags: 0x202, sequence: 1, payload: done })).toEqual({
      errno: 13,
      text: "because",
    });
  });

  it("tells a link that is gone from a port that left its bridge", () => {
    const heard = golden("removals").received.flatMap(decodeMessages);
    expect(heard.filter(({ type }) => type === RTM_DELLINK)).toHaveLength(2);
    expect(heard.map(removedLink).filter((index) => index !== undefined)).toEqual([TAP0]);
  });
});

describe("whatever the bytes, decoding ends in a value or a NetlinkFormatError", () => {
  /** Decodes everything that can be decoded in `datagram`. */
  function decodeAll(datagram: Uint8Array): number {
    const messages = decodeMessages(datagram);
    for (const message of messages) {
      if (message.type === RTM_NEWLINK) decodeLink(message);
      else if (message.type === RTM_DELLINK) removedLink(message);
      else if (message.type === NLMSG_ERROR || message.type === NLMSG_DONE) decodeResult(message);
    }
    return messages.length;
  }

  function decodesOrRefuses(datagram: Uint8Array): void {
    try {
      decodeAll(datagram);
    } catch (error) {
      expect(error).toBeInstanceOf(NetlinkFormatError);
    }
  }

  const received = goldens.flatMap(({ name }) => golden(name).received);

  it("cut at every byte", () => {
    for (const datagram of received) {
      const whole = decodeAll(datagram);
      expect(whole).toBeGreaterThan(0);
      // Sampling keeps the long dumps from taking seconds; each short answer is cut everywhere.
      const step = datagram.length > 500 ? 7 : 1;
      for (let length = 1; length < datagram.length; length += step) {
        try {
          expect(decodeAll(datagram.slice(0, length))).toBeLessThan(whole);
        } catch (error) {
          expect(error).toBeInstanceOf(NetlinkFormatError);
        }
      }
    }
  });

  it("with bytes after its end", () => {
    for (const datagram of received)
      for (const trailing of [1, 2, 3, 5, 15])
        expect(() => decodeAll(concatBytes([datagram, new Uint8Array(trailing).fill(0xff)]))).toThrow(
          NetlinkFormatError,
        );
  });

  it("with every length field made wrong", () => {
    for (const datagram of received.filter(({ length }) => length < 2000))
      for (let at = 0; at + 2 <= datagram.length; at += 2)
        for (const wrong of [0, 1, 3, 0x7fff, 0xffff]) {
          const broken = datagram.slice();
          new DataView(broken.buffer).setUint16(at, wrong, true);
          decodesOrRefuses(broken);
        }
  });

  it("names what is wrong", () => {
    expect(() => decodeMessages(new Uint8Array(15))).toThrow("header at byte 0 is cut: 15 of 16 bytes");
    expect(() => decodeMessages(bytes(new Payload(15, 0, 0, 0)))).toThrow("claims 15 bytes, 16 are");
    expect(() => decodeAttributes(Uint8Array.of(3, 0, 1, 0))).toThrow(
      "attribute 1 claims 3 bytes, 4 are there",
    );
    expect(() => readU32(new Map([[4, Uint8Array.of(1, 0)]]), 4)).toThrow("attribute 4 has 2 bytes, not 4");
    const end = { type: NLMSG_ERROR, flags: 0, sequence: 9, payload: bytes(new Payload(5)) };
    expect(() => decodeResult(end)).toThrow("request 9 ended with 5, not -errno");
    const empty = { type: RTM_NEWLINK, flags: 0, sequence: 9, payload: new Uint8Array(16) };
    expect(() => decodeLink(empty)).toThrow("message about interface 0 lacks its name or MTU");
  });
});

describe("attributes of a message", () => {
  const message = bytes(new Payload().number(3, 33).octets(40, [1, 2, 3]).number(31, 31));

  it("are all read, or those that somebody wants", () => {
    expect([...decodeAttributes(message).keys()]).toEqual([3, 40, 31]);
    // 40 lies beyond the bits, where 1 << 40 would be 1 << 8.
    expect([...decodeAttributes(message, typesAsBits(3, 31, 8)).keys()]).toEqual([3, 31]);
    expect([...decodeAttributes(message, 0).keys()]).toEqual([]);
  });

  it("are checked, also those that nobody wants", () => {
    expect(() => decodeAttributes(message.subarray(0, message.length - 1), typesAsBits(3))).toThrow(
      "attribute 31 claims 8 bytes, 7 are there",
    );
  });
});

describe("requests that cannot be laid out are refused", () => {
  it.each(["", "sixteen-letters-", "a/b", "a b", "a:b", "eth\u0000"])("interface name %j", (name) => {
    expect(() => findLink(name)).toThrow(NetlinkFormatError);
  });

  it.each(["", "00:16:3e:01:02", "00:16:3e:01:02:0g", "001:6:3e:01:02:03"])("MAC %j", (address) => {
    expect(() => changeLink(1, { address })).toThrow(NetlinkFormatError);
  });

  it("an attribute longer than its length field can say", () => {
    expect(bytes(new Payload().octets(1, new Uint8Array(65531))).length).toBe(65536);
    expect(() => new Payload().octets(1, new Uint8Array(65532))).toThrow(NetlinkFormatError);
    expect(bytes(new Payload().nest(1, new Array<number>(16382).fill(0))).length).toBe(65532);
    expect(() => new Payload().nest(1, new Array<number>(16383).fill(0))).toThrow(NetlinkFormatError);
  });

  it("pads, and does not count the padding", () => {
    expect(hex(bytes(new Payload().octets(7, [0xab])))).toBe("05000700ab000000");
    expect(hex(bytes(new Payload().octets(7, [1, 2, 3, 4])))).toBe("0800070001020304");
    expect(hex(bytes(new Payload().octets(7, [])))).toBe("04000700");
  });
});
