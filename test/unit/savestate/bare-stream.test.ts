import { expect, test } from "vitest";
import { BareStream } from "../../../agent/savestate/bare-stream.ts";
import { StateFormatError } from "../../../agent/savestate/errors.ts";
import { StateSums } from "../../../agent/savestate/tail.ts";
import { Random } from "../../fakes/random.ts";
import { xxh64 } from "../../fakes/xxh64.ts";
import { randomBytes } from "./support.ts";

function withTail(state: Uint8Array): Uint8Array {
  const sums = new StateSums(xxh64);
  sums.add(state);
  return Buffer.concat([state, sums.tail()]);
}

/** What QEMU gets of `bytes`, in pieces of at most so many, and why no more. */
async function through(bytes: Uint8Array, piece = 4096) {
  const got: Uint8Array[] = [];
  let fault: unknown;
  const stream = new BareStream(xxh64, async (part) => void got.push(part.slice()));
  try {
    for (let at = 0; at < bytes.length && stream.whole === undefined; at += piece)
      await stream.add(bytes.subarray(at, at + piece));
    stream.finish();
  } catch (error) {
    fault = error;
  }
  return { got: Buffer.concat(got), fault, whole: stream.whole };
}

test.each([
  [0, 4096],
  [1, 1],
  [65_535, 4096],
  [65_536, 2047],
  [131_072 + 5, 4096],
  [262_144, 262_144],
  [1_000_000, 300_000],
])("a state of %i bytes in pieces of %i is passed on whole", async (length, piece) => {
  const state = randomBytes(length, length + 1);
  const { got, fault, whole } = await through(withTail(state), piece);
  expect(fault).toBeUndefined();
  expect(whole).toBe(length);
  expect(got.equals(state)).toBe(true);
});

test("what is changed anywhere is refused before QEMU has all of it", async () => {
  const file = withTail(randomBytes(400_000, 3));
  const random = new Random(5);
  for (let i = 0; i < 120; i++) {
    const at = i < 60 ? file.length - 1 - i : random.between(0, file.length - 1);
    const { got, fault, whole } = await through(file.with(at, (file[at] ?? 0) ^ (1 << random.between(0, 7))));
    expect(fault, `byte ${at}`).toBeInstanceOf(StateFormatError);
    expect(whole).toBeUndefined();
    expect(got.length).toBeLessThan(400_000);
  }
});

test("what is cut off anywhere is refused before QEMU has all of it", async () => {
  const file = withTail(randomBytes(400_000, 4));
  const random = new Random(6);
  for (let i = 0; i < 120; i++) {
    const length = i < 40 ? file.length - 1 - i : random.between(0, file.length - 1);
    const { got, fault } = await through(file.subarray(0, length));
    expect(fault).toMatchObject({
      offset: length,
      message: expect.stringMatching(/no checksums stand behind/),
    });
    expect(got.length).toBeLessThan(400_000);
  }
});

test("a state of another version, and one that looks like a footer in the middle", async () => {
  const file = withTail(randomBytes(5_000, 7));
  file[file.length - 16] = 2;
  expect((await through(file)).fault).toMatchObject({ message: expect.stringMatching(/version 2/) });
  const state = randomBytes(9_000, 8);
  state.set(Buffer.from("LXSDTAIL"), 4096 - 32);
  expect((await through(withTail(state))).got.equals(state)).toBe(true);
});
