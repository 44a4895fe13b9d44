import { expect, test } from "vitest";
import { LineTooLong, readLine } from "../../../agent/platform/read-line.ts";
import type { ByteStream } from "../../../agent/platform/stream.ts";

/** Each piece at the end of a buffer of its own, as a stream's are. */
function streamOf(...pieces: string[]): ByteStream {
  const chunks = pieces.map((piece) => {
    const buffer = new Uint8Array(16 * 1024);
    return buffer.subarray(0, new TextEncoder().encodeInto(piece, buffer).written);
  });
  return { read: async () => chunks.shift() ?? null, write: async () => {}, close() {} };
}

test("a line, whatever pieces it comes in", async () => {
  expect(await readLine(streamOf("one\ntwo\n"), 100)).toBe("one");
  expect(await readLine(streamOf(..."byte by byte\n"), 100)).toBe("byte by byte");
  expect(await readLine(streamOf("x".repeat(300), "y".repeat(700), "\n"), 1000)).toBe(
    "x".repeat(300) + "y".repeat(700),
  );
  expect(await readLine(streamOf("\n"), 100)).toBe("");
});

test("no line, and one that is too long", async () => {
  expect(await readLine(streamOf("one"), 100)).toBeNull();
  expect(await readLine(streamOf("x".repeat(100), "\n"), 100)).toBe("x".repeat(100));
  await expect(readLine(streamOf("x".repeat(100), "y\n"), 100)).rejects.toThrow(LineTooLong);
});
