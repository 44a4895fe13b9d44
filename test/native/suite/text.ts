import * as native from "stubdom-native";
import { equal, type Group, refusals, text, throws } from "../harness.ts";

const bytesOf = (string: string) => new Uint8Array(native.encodeText(string));
const REPLACED = "\ufffd";

export const textTests: Record<string, Group> = {
  encodeText: {
    ...refusals("encodeText", native.encodeText, "text"),
    "one to four bytes a character": () => {
      equal(bytesOf("aé€😀"), Uint8Array.of(0x61, 0xc3, 0xa9, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80));
      equal(bytesOf(""), new Uint8Array());
      equal(bytesOf("a\0b"), Uint8Array.of(0x61, 0, 0x62));
    },
    "a long text": () => equal(bytesOf("é".repeat(100_000)).length, 200_000),
  },
  decodeText: {
    ...refusals("decodeText", native.decodeText, "bytes"),
    "what was encoded": () => {
      for (const string of ["", "a", "aé€😀", "a\0b", "\u{10ffff}", "é".repeat(10_000)])
        equal(native.decodeText(bytesOf(string)), string);
    },
    "a part of a buffer": () => equal(native.decodeText(text("abcdef").subarray(3, 5)), "de"),
    "an array of wider elements": () => {
      const words = new Uint16Array([0x6261, 0x6463]);
      equal(native.decodeText(words as unknown as Uint8Array), "abcd");
    },
    "bad bytes, each replaced": () => {
      for (const [bytes, string] of [
        [[0xff], REPLACED],
        [[0x61, 0x80, 0x62], `a${REPLACED}b`],
        [[0xc3], REPLACED],
        [[0xe2, 0x82], REPLACED.repeat(2)],
        [[0xf0, 0x9f, 0x98], REPLACED.repeat(3)],
        [[0xc0, 0x80], REPLACED.repeat(2)],
        [[0xe0, 0x80, 0x80], REPLACED.repeat(3)],
        [[0xed, 0xa0, 0x80], REPLACED.repeat(3)],
        [[0xf4, 0x90, 0x80, 0x80], REPLACED.repeat(4)],
        [[0xf8, 0x61], `${REPLACED}a`],
      ] as const)
        equal(native.decodeText(Uint8Array.from(bytes)), string);
    },
    "every pair of bytes at the very end of a buffer": () => {
      for (let pair = 0; pair < 0x10000; pair += 3) native.decodeText(Uint8Array.of(pair >> 8, pair & 0xff));
    },
    "an odd offset": () => {
      const bytes = new Uint8Array(9);
      bytes.set(text("abc"), 5);
      equal(native.decodeText(bytes.subarray(5, 8)), "abc");
    },
  },
  errorName: {
    ...refusals("errorName", native.errorName, "integer"),
    "known and unknown": () => {
      equal(native.errorName(2), "ENOENT");
      equal(native.errorName(100_000), undefined);
      equal(native.errorName(-1), undefined);
      throws(() => native.errorName(Symbol("x") as unknown as number));
    },
  },
};
