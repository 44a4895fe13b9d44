import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterEach, beforeEach, expect, test } from "vitest";
import { neverStarted, readMinios } from "../../../scripts/bench/minios.ts";
import {
  CreateFailure,
  EmulatorFault,
  LabError,
  RemoteFailure,
  Timeout,
} from "../../../scripts/lab/errors.ts";

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "stubdom-bench-"));
});
afterEach(() => rmSync(directory, { recursive: true }));

const given = (name: string, content: string | Uint8Array): string => {
  const file = join(directory, name);
  writeFileSync(file, content);
  return file;
};
const elf = Buffer.concat([Buffer.from("\x7fELF"), Buffer.alloc(1000, "minios")]);

test("a stub domain and an hvmloader with ROMBIOS are taken as they are", () => {
  const packed = gzipSync(elf);
  const rombios = Buffer.concat([elf, Buffer.from("Bochs BIOS")]);
  expect(readMinios(given("a.gz", packed), undefined)).toEqual({ image: packed });
  expect(readMinios(given("a", elf), given("h", rombios))).toEqual({ image: elf, hvmloader: rombios });
});

test.each<[string, string | Uint8Array, string]>([
  ["text", "no kernel", "is no ELF; give the ioemu-stubdom.gz"],
  ["text in gzip", gzipSync("no kernel"), "is no ELF in its gzip; give"],
  ["half of it", gzipSync(elf).subarray(0, 30), "is no whole gzip file ("],
  ["nothing", "", "is no ELF; give"],
])("--minios with %s is refused", (_, content, message) => {
  const file = given("minios.gz", content);
  expect(() => readMinios(file, undefined)).toThrow(RangeError);
  expect(() => readMinios(file, undefined)).toThrow(`--minios ${file}: ${message}`);
});

test("so are files that are not there, and an hvmloader without ROMBIOS", () => {
  const [image, none] = [given("a", elf), join(directory, "none")];
  expect(() => readMinios(none, undefined)).toThrow(`--minios ${none}: cannot be read (ENOENT`);
  expect(() => readMinios(image, none)).toThrow(`--minios-hvmloader ${none}: cannot be read (ENOENT`);
  expect(() => readMinios(image, given("h", gzipSync(elf)))).toThrow("is no ELF; give the hvmloader");
  expect(() => readMinios(image, given("h", elf))).toThrow(
    'has no ROMBIOS ("Bochs BIOS"); build Xen with --enable-qemu-traditional',
  );
});

test("a guest that never came up is told from one that broke later, or was killed", () => {
  for (const error of [
    new CreateFailure("xl create: exit status 1"),
    new Timeout("stubdom-bench-0: no /\\S/ on the console in 900 s; last lines:\n"),
    new LabError("stubdom-bench-0 ended before /\\S/"),
    new Timeout("in dom0: xl create /root/g/guest.cfg: not done after 900 s\n"),
  ])
    expect(neverStarted(error)).toBe(true);
  for (const error of [
    undefined,
    new Timeout("stubdom-bench-0: no guest: ready on the console in 3600 s; last lines:\n"),
    new RemoteFailure("xl save", 1, "", ""),
    new EmulatorFault("killed", ""),
    new Error("its VGA BIOS has no mode"),
  ])
    expect(neverStarted(error)).toBe(false);
});
