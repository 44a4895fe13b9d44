import { expect, test } from "vitest";
import { CHARACTER_DEVICE, cpio, DIRECTORY, EXECUTABLE, SYMLINK } from "../../../bundler/cpio.ts";

const entries = [
  { path: "dev", mode: DIRECTORY },
  { path: "dev/console", mode: CHARACTER_DEVICE, device: [5, 1] as const },
  { path: "init", mode: EXECUTABLE, data: Buffer.from("odd") },
  { path: "link", mode: SYMLINK, data: Buffer.from("init") },
];

test("an archive of nothing is the trailer alone", () => {
  expect(cpio([]).toString("latin1")).toBe(
    `070701${"0".repeat(8 * 4)}00000001${"0".repeat(8 * 6)}0000000b${"0".repeat(8)}TRAILER!!!\0\0\0\0`,
  );
});

/** A reader for what the test needs: name, mode, device and data of each entry. */
function read(archive: Buffer): unknown[] {
  const found = [];
  for (let at = 0; at < archive.length; ) {
    const field = (index: number): number =>
      Number.parseInt(archive.toString("latin1", at + 6 + index * 8, at + 14 + index * 8), 16);
    const [mode, size, major, minor, nameSize] = [1, 6, 9, 10, 11].map(field) as [
      number,
      number,
      number,
      number,
      number,
    ];
    const name = archive.toString("utf8", at + 110, at + 110 + nameSize - 1);
    const data = (at + 110 + nameSize + 3) & ~3;
    if (name !== "TRAILER!!!")
      found.push([name, mode, [major, minor], archive.toString("utf8", data, data + size)]);
    at = (data + size + 3) & ~3;
  }
  return found;
}

test("entries are read back as they were written, devices and links too", () => {
  expect(read(cpio(entries))).toEqual([
    ["dev", 0o040755, [0, 0], ""],
    ["dev/console", 0o020600, [5, 1], ""],
    ["init", 0o100755, [0, 0], "odd"],
    ["link", 0o120777, [0, 0], "init"],
  ]);
});

test("every header and every file starts at a multiple of 4", () => {
  const archive = cpio(entries).toString("latin1");
  const starts = [...archive.matchAll(/070701/g)].map((match) => match.index);
  expect(starts).toHaveLength(entries.length + 1);
  expect(starts.filter((start) => start % 4 !== 0)).toEqual([]);
});
