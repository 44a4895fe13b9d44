import { describe, expect, it } from "vitest";
import { concatBytes } from "../../../agent/bytes/bytes.ts";
import { decodeText, encodeText, encodeWithin, isDecimal } from "../../../agent/bytes/text.ts";

describe("concatBytes", () => {
  it("joins parts in order, empty ones too", () => {
    expect(concatBytes([])).toEqual(new Uint8Array());
    expect(concatBytes([Uint8Array.of(1, 2), new Uint8Array(), Uint8Array.of(3)])).toEqual(
      Uint8Array.of(1, 2, 3),
    );
  });

  it("copies: the whole does not change with a part, nor reaches beyond a view", () => {
    const buffer = Uint8Array.of(9, 1, 2, 9);
    const whole = concatBytes([buffer.subarray(1, 3)]);
    buffer.fill(0);
    expect(whole).toEqual(Uint8Array.of(1, 2));
  });
});

describe("text", () => {
  it("goes there and back as UTF-8", () => {
    for (const text of ["", "device/vbd", "Grüße, 世界 🖥"]) expect(decodeText(encodeText(text))).toBe(text);
  });

  it("is cut between characters", () => {
    const cut = [0, 1, 2, 3, 4, 5, 6, 7, 8].map((most) => decodeText(encodeWithin("a€🖥", most)));
    expect(cut).toEqual(["", "a", "a", "a", "a€", "a€", "a€", "a€", "a€🖥"]);
  });

  it("has U+FFFD for what is not UTF-8, and never throws", () => {
    expect(decodeText(Uint8Array.of(0x61, 0xff, 0x62))).toBe("a\ufffdb");
    expect(decodeText(Uint8Array.of(0xe4, 0xb8))).toBe("\ufffd");
    for (let byte = 0; byte < 256; byte++) expect(() => decodeText(Uint8Array.of(byte, byte))).not.toThrow();
  });

  it("keeps NUL as a character like any other", () => {
    expect(decodeText(Uint8Array.of(0x61, 0, 0x62))).toBe("a\0b");
  });
});

describe("isDecimal", () => {
  it("takes digits, as many as are allowed", () => {
    for (const text of ["0", "007", "99999"]) expect(isDecimal(text, 5), text).toBe(true);
    expect(isDecimal("100000", 5)).toBe(false);
  });

  it("takes nothing else that JavaScript has for a number", () => {
    for (const text of ["", " 1", "1\n", "-1", "+1", "1e3", "0x1", "1.0", "١"])
      expect(isDecimal(text, 5), JSON.stringify(text)).toBe(false);
  });
});
