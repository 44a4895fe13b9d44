import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

interface FileFacts {
  readonly size: number;
  readonly sha256: string;
}

interface Manifest {
  readonly version: string;
  readonly files: Readonly<Record<string, FileFacts>>;
  readonly debian: {
    readonly sources: Readonly<Record<string, string>>;
    readonly packages: Readonly<Record<string, string>>;
    readonly buildRoot: readonly string[];
  };
  readonly npm: Readonly<Record<string, string>>;
  readonly ramdisk: Readonly<Record<string, FileFacts>>;
}

const dist = new URL("../../dist/", import.meta.url);
const file = (name: string): Buffer => readFileSync(new URL(name, dist));
const manifest = JSON.parse(file("manifest.json").toString()) as Manifest;

/** Program headers of a 64-bit little-endian ELF (elf(5)): type of each. */
function segments(elf: Buffer): number[] {
  const offset = Number(elf.readBigUInt64LE(32));
  const [size, count] = [elf.readUInt16LE(54), elf.readUInt16LE(56)];
  return Array.from({ length: count }, (_, index) => elf.readUInt32LE(offset + index * size));
}

const PT_INTERP = 3;
const PT_GNU_RELRO = 0x6474e552;
const ET_DYN = 3;

test("kernel and ramdisk are at most 8.0 MB together, the agent at most 3.0 MB", () => {
  const size = (name: string): number => file(name).length;
  expect(size("stubdom-linux-kernel") + size("stubdom-linux-ramdisk")).toBeLessThanOrEqual(8_000_000);
  expect(size("stubdom")).toBeLessThanOrEqual(3_000_000);
});

test("the agent is one static, position-independent program with read-only relocations", () => {
  const agent = file("stubdom");
  expect(agent.readUInt16LE(16)).toBe(ET_DYN);
  expect(segments(agent)).not.toContain(PT_INTERP);
  expect(segments(agent)).toContain(PT_GNU_RELRO);
});

test("the manifest describes exactly the files beside it", () => {
  expect(Object.keys(manifest.files).sort()).toEqual([
    "stubdom",
    "stubdom-linux-kernel",
    "stubdom-linux-ramdisk",
  ]);
  for (const [name, { size, sha256 }] of Object.entries(manifest.files)) {
    const data = file(name);
    expect([name, data.length, createHash("sha256").update(data).digest("hex")]).toEqual([
      name,
      size,
      sha256,
    ]);
  }
  expect(manifest.ramdisk["/init"]?.sha256).toBe(manifest.files.stubdom?.sha256);
});

test("the manifest names a version for every part", () => {
  expect(Object.keys(manifest.debian.sources).sort()).toEqual(["busybox", "qemu"]);
  expect(manifest.debian.packages).toHaveProperty("linux-source-6.12");
  expect(manifest.npm).toMatchObject({
    ini: expect.any(String),
    pino: expect.any(String),
    yargs: expect.any(String),
  });
  for (const [name, version] of Object.entries(manifest.debian.packages)) {
    expect(manifest.debian.buildRoot).toContain(`${name}=${version}`);
  }
});

test("the manifest holds neither times nor places of the build", () => {
  const text = JSON.stringify(manifest);
  expect(text).not.toMatch(/\b20\d\d-\d\d-\d\dT|\/home\/|\/tmp\/|\/root\//);
});

test("the ramdisk holds what QEMU insists on, and no more programs than agent, QEMU and busybox", () => {
  const paths = Object.keys(manifest.ramdisk);
  for (const name of [
    "vgabios-stdvga.bin",
    "vgabios-cirrus.bin",
    "efi-e1000.rom",
    "efi-rtl8139.rom",
    "keymaps/en-us",
  ]) {
    expect(paths).toContain(`/usr/share/qemu/${name}`);
  }
  for (const name of ["clock", "flush"]) expect(paths).toContain(`/lib/stubdom-${name}.so`);
  const outside = paths.filter((path) => !/^\/(usr\/share\/qemu|etc|lib|lib64|sbin)\//.test(path));
  expect(outside.sort()).toEqual(["/bin/busybox", "/init", "/usr/bin/qemu-system-i386"]);
});
