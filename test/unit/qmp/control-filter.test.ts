import { describe, expect, test } from "vitest";
import { concatBytes } from "../../../agent/bytes/bytes.ts";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { ControlFilter } from "../../../agent/qmp/control-filter.ts";

/** As it comes in pieces of so many bytes. */
function filtered(bytes: Uint8Array, piece = bytes.length): Uint8Array {
  const filter = new ControlFilter();
  const parts: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += piece) {
    const part = bytes.slice(at, at + piece);
    filter.filter(part);
    parts.push(part);
  }
  return concatBytes(parts);
}

const text = (given: string, piece?: number) => decodeText(filtered(encodeText(given), piece));

describe("what QEMU says to a terminal of dom0's", () => {
  const bad = [
    String.raw`{"error": {"desc": "\u001b]0;root\u0007\u001b[2J"}}`,
    String.raw`{"error": {"desc": "\u0000\u001F\u0085\u009b31m\u007f\u007F"}}`,
    String.raw`{"error": {"desc": "over\b\b\b\bwritten\f"}}`,
    `{"error": {"desc": "\u001b[2J \u007f \u0007"}}`,
    `{"error": {"desc": "\u009b31m \u0085"}}`,
    String.raw`{"error": {"desc": "\\\u001b \\\\\b"}}`,
  ];

  for (const given of bad) {
    test(`${JSON.stringify(given)} has no control character, and is JSON as before`, () => {
      const bytes = encodeText(given);
      const whole = filtered(bytes);
      expect(whole).toHaveLength(bytes.length);
      const { error } = JSON.parse(decodeText(whole)) as { error: { desc: string } };
      // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly those must not come through
      expect(error.desc).not.toMatch(/[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/);
      // However it is cut.
      for (let piece = 1; piece < 9; piece++) expect(filtered(bytes, piece)).toEqual(whole);
    });
  }

  test("what is no JSON has none either", () => {
    for (const before of ["\\", "\\u", "\\u0", "\\u00", "\\u007"])
      expect(text(`${before}\u001b[2J`)).toBe(`${before}?[2J`);
  });

  test("all else passes as it is", () => {
    for (const given of [
      '{"return": {"status": "running"}, "id": 1}\r\n',
      String.raw`{"return": "line\r\n\ttab, \"quoted\", C:\\users\\ubuntu, \/, \u00e9 \u0391 \u2028 \u007e \u0070"}`,
      '{"return": "ÄÖÜ \u00a0 \u00bf ¢ 漢字"}',
    ])
      for (const piece of [1, 3, 1000]) expect(text(given, piece)).toBe(given);
  });
});
