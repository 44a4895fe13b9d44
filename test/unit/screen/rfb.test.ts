import { describe, expect, it, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { RfbError } from "../../../agent/screen/errors.ts";
import {
  attention,
  checkedSize,
  checkVersion,
  clientSetup,
  decodeCutTextLength,
  decodeRectangle,
  decodeRectangleCount,
  decodeServerInit,
  keyEvent,
  pointerEvent,
  setEncodings,
  setPixelFormat,
  updateRequest,
} from "../../../agent/screen/rfb.ts";

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function bytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text.replaceAll(" ", ""), "hex"));
}

// By RFC 6143's tables, by hand.
describe("what the client says", () => {
  test.each([
    ["SetPixelFormat", setPixelFormat, "00 000000 20 18 00 01 00ff 00ff 00ff 10 08 00 000000"],
    ["SetEncodings", setEncodings([0, -223]), "02 00 0002 00000000 ffffff21"],
    ["no encodings", setEncodings([]), "02 00 0000"],
    ["all of it", updateRequest({ width: 1024, height: 768 }, false), "03 00 0000 0000 0400 0300"],
    ["what changes", updateRequest({ width: 720, height: 400 }, true), "03 01 0000 0000 02d0 0190"],
    ["a key down", keyEvent(0x9c, true), "ff 00 0001 00000000 0000009c"],
    ["a key down, with its keysym", keyEvent(0x1d, true, 0xffe3), "ff 00 0001 0000ffe3 0000001d"],
    ["a key up", keyEvent(1, false), "ff 00 0000 00000000 00000001"],
    ["a pointer", pointerEvent(1023, 767, 5), "05 05 03ff 02ff"],
    ["attention", attention, "06 000000 00000000"],
  ])("%s", (_name, message, expected) => {
    expect(hex(message)).toBe(expected.replaceAll(" ", ""));
  });

  it("begins with format, encodings and attention", () => {
    expect(hex(clientSetup())).toBe(
      hex(setPixelFormat) + hex(setEncodings([0, -223, -258])) + hex(attention),
    );
  });
});

describe("what the server says", () => {
  it("ServerInit", () => {
    const init = bytes("02d0 0190 20 18 00 01 00ff 00ff 00ff 10 08 00 000000 00000004");
    expect(decodeServerInit(init)).toEqual({ width: 720, height: 400, nameLength: 4 });
  });

  it("a rectangle, its encoding signed", () => {
    expect(decodeRectangle(bytes("0010 0020 0030 0040 ffffff21"))).toEqual({
      area: { x: 16, y: 32, width: 48, height: 64 },
      encoding: -223,
    });
  });

  it("counts and lengths", () => {
    expect(decodeRectangleCount(bytes("00 ffff"))).toBe(65535);
    expect(decodeCutTextLength(bytes("000000 fffffffe"))).toBe(0xfffffffe);
  });

  it("reads within a larger buffer", () => {
    const whole = bytes("ff 00 0102");
    expect(decodeRectangleCount(whole.subarray(1))).toBe(0x102);
  });

  test.each(["RFB 003.008\n", "RFB 003.009\n", "RFB 003.889\n"])("version %j is spoken", (text) => {
    expect(() => checkVersion(encodeText(text))).not.toThrow();
  });

  test.each(["RFB 003.003\n", "RFB 003.007\n", "RFB 004.008\n", "HTTP/1.1 200", "\0\0\0\0\0\0\0\0\0\0\0\0"])(
    "version %j is not",
    (text) => {
      expect(() => checkVersion(encodeText(text))).toThrow(RfbError);
    },
  );

  test.each([
    [0, 400],
    [720, 0],
    [65535, 65535],
    [16385, 1],
  ])("a screen of %i x %i is refused", (width, height) => {
    expect(() => checkedSize(width, height)).toThrow(RfbError);
  });
});
