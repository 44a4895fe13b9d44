import { expect, test } from "vitest";
import { StateFormatError } from "../../../agent/savestate/errors.ts";
import { compareTails, footerSize, StateSums, stateLength, tailSize } from "../../../agent/savestate/tail.ts";
import { Random } from "../../fakes/random.ts";
import { xxh64 } from "../../fakes/xxh64.ts";
import { randomBytes } from "./support.ts";

function tailOf(state: Uint8Array, piece = 10_007): Uint8Array {
  const sums = new StateSums(xxh64);
  for (let at = 0; at < state.length; at += piece) sums.add(state.subarray(at, at + piece));
  return sums.tail();
}

function withTail(state: Uint8Array): Uint8Array {
  return Uint8Array.from([...state, ...tailOf(state)]);
}

/** What the helper does with a file that libxl has received. @returns the state, `undefined` when nothing can be told */
function check(file: Uint8Array): Uint8Array | undefined {
  const length = stateLength(file.length, file.subarray(Math.max(0, file.length - footerSize)));
  if (length === undefined) return undefined;
  const state = file.subarray(0, length);
  compareTails(length, tailOf(state), file.subarray(length));
  return state;
}

test.each([0, 1, 65_535, 65_536, 65_537, 131_072, 200_000])("a state of %i bytes and its tail", (length) => {
  const state = randomBytes(length, length);
  const tail = tailOf(state);
  expect(tail.length).toBe(tailSize(length));
  expect(tailOf(state, 65_536)).toEqual(tail);
  expect(check(withTail(state))).toEqual(state);
});

test("the byte after QEMU's end never means anything to QEMU", () => {
  for (let i = 0; i < 300; i++) expect(tailOf(randomBytes(50, i))[0]).toBe(0x4c);
});

test("any changed byte is refused, with the 64 KiB that it is in", () => {
  const state = randomBytes(150_000, 1);
  const file = withTail(state);
  const random = new Random(7);
  const below = (count: number) => random.between(0, count - 1);
  for (let i = 0; i < 400; i++) {
    const at = i < footerSize + 40 ? file.length - 1 - i : below(file.length);
    const harmed = file.slice();
    harmed[at] = (harmed[at] ?? 0) ^ (1 << below(8));
    let refusal: unknown;
    let state: Uint8Array | undefined;
    try {
      state = check(harmed);
    } catch (error) {
      refusal = error;
    }
    // Without its magic it is no footer: then nothing is promised, and nothing pretended.
    const unmarked = at >= file.length - footerSize && at < file.length - footerSize + 8;
    if (unmarked) expect(refusal === undefined && state === undefined).toBe(true);
    else expect(refusal, `byte ${at}`).toBeInstanceOf(StateFormatError);
    if (at < 150_000) expect((refusal as StateFormatError).offset).toBe(at - (at % 65_536));
  }
}, 30_000);

test("a newer version, a length that does not fit", () => {
  const file = withTail(randomBytes(1000, 1));
  const at = file.length - footerSize;
  const newer = file.slice();
  newer[at + 16] = 2;
  expect(() => check(newer)).toThrow(/byte 1\d{3}: checksums of version 2; this program reads version 1/);
  const cut = file.slice(1);
  expect(() => check(cut)).toThrow(/the state had 1000 bytes/);
});
