/**
 * Disk images that the emulated guest's SeaBIOS boots: a partition table, one FAT partition with syslinux, the
 * small kernel and the test guest's ramdisk. Made by unprivileged tools, no loop device or mount.
 *
 *     sector 0        boot code and partition table
 *     sector 8        "linux-stubdom:", by which the guest knows the disk that it was booted from
 *     sector 9        how often it was booted: decimal digits and a newline, written by the guest
 *     sector 2048...  the FAT partition, active
 */

import { chmodSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { cached, digest } from "../../bundler/cache.ts";
import { CHARACTER_DEVICE, type CpioEntry, cpio, DIRECTORY, EXECUTABLE } from "../../bundler/cpio.ts";
import { rootContents } from "../../bundler/debian.ts";
import { run } from "../../bundler/exec.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { labTools, type Tools } from "./tools.ts";

const SECTOR = 512;
const MARK_SECTOR = 8;
const PARTITION_SECTOR = 2048;
/** FAT with logical block addresses. */
const PARTITION_TYPE = 0x0e;
const GUEST = join(PROJECT, "test/xen/guest");

export interface GuestDiskOptions {
  /** What the guest does, see `test/xen/guest/init`: `sha256`, `write:sdb`, `reboot:3`, `beat`... */
  readonly jobs?: readonly string[];
  /** Further words for the guest's kernel. */
  readonly cmdline?: string;
  /** Files of the boot partition; `job` is the script of the job `script`. */
  readonly files?: Readonly<Record<string, string | Uint8Array>>;
  readonly sizeMiB?: number;
  /** The guest's kernel; by default the one that `npm run build` made. */
  readonly kernel?: string;
}

/** A bootable disk image, from the cache or made now (a second). Copy it before anything writes to it. */
export async function guestDisk(options: GuestDiskOptions = {}): Promise<string> {
  const { jobs = [], sizeMiB = 16, files = {} } = options;
  const kernel = options.kernel ?? join(PROJECT, "dist/test-guest-kernel");
  const cmdline = [
    "console=ttyS0 panic=1",
    options.cmdline ?? "",
    jobs.length > 0 ? `jobs=${jobs.join(",")}` : "",
  ];
  const config = [
    "SERIAL 0 115200",
    "DEFAULT linux",
    "LABEL linux",
    "  KERNEL kernel",
    "  INITRD initrd",
    `  APPEND ${cmdline.filter(Boolean).join(" ")}`,
    "",
  ].join("\n");
  const tools = await labTools();
  const contents = {
    kernel: readFileSync(kernel),
    initrd: guestInitrd(tools),
    "syslinux.cfg": config,
    ...files,
  };
  const key = digest({
    ...contents,
    size: String(sizeMiB),
    tools: rootContents(tools.root),
    recipe: readFileSync(import.meta.filename),
  });
  const entry = await cached("guest-disk", key, async (dir, log) => {
    const image = join(dir, "disk.img");
    writeFileSync(image, diskFrame(sizeMiB, readFileSync(tools.path("/usr/lib/syslinux/mbr/mbr.bin"))));
    await fillPartition(tools, image, dir, contents, sizeMiB, log);
  });
  return join(entry, "disk.img");
}

/** An image of this size with boot code, one partition and our mark. */
function diskFrame(sizeMiB: number, bootCode: Uint8Array): Buffer {
  const disk = Buffer.alloc(sizeMiB << 20);
  disk.set(bootCode, 0);
  const sectors = disk.length / SECTOR - PARTITION_SECTOR;
  const entry = 0x1be;
  disk[entry] = 0x80; // active
  disk.fill(0xff, entry + 1, entry + 8); // cylinders, heads, sectors: "look at the block addresses"
  disk[entry + 4] = PARTITION_TYPE;
  disk.writeUInt32LE(PARTITION_SECTOR, entry + 8);
  disk.writeUInt32LE(sectors, entry + 12);
  disk.writeUInt16LE(0xaa55, 510);
  disk.write("linux-stubdom:", MARK_SECTOR * SECTOR);
  return disk;
}

async function fillPartition(
  tools: Tools,
  image: string,
  dir: string,
  contents: Readonly<Record<string, string | Uint8Array>>,
  sizeMiB: number,
  log: string,
): Promise<void> {
  const offset = PARTITION_SECTOR * SECTOR;
  const partition = `${image}@@${offset}`;
  const sectors = (sizeMiB << 20) / SECTOR - PARTITION_SECTOR;
  const mtool = (name: string, ...args: readonly string[]): Promise<void> =>
    run(tools.command(`/usr/bin/${name}`, "-i", partition, ...args), { log });
  await mtool("mformat", "-T", String(sectors), "-h", "16", "-s", "63", "-H", String(PARTITION_SECTOR), "::");
  // syslinux calls mtools by name, so they stand on its path, each run by the right dynamic linker.
  const bin = join(dir, "bin");
  mkdirSync(bin);
  for (const name of ["mcopy", "mmove", "mattrib"]) {
    const words = tools.command("/usr/bin/mtools", "-c", name).map((word) => `'${word}'`);
    writeFileSync(join(bin, name), `#!/bin/sh\nexec ${words.join(" ")} "$@"\n`);
    chmodSync(join(bin, name), 0o755);
  }
  const env = { ...process.env, PATH: `${bin}:${process.env.PATH ?? ""}` };
  await run(tools.command("/usr/bin/syslinux", "--install", "--offset", String(offset), image), { log, env });
  rmSync(bin, { recursive: true });
  const staging = join(dir, "staging");
  mkdirSync(staging);
  for (const [name, content] of Object.entries(contents)) {
    writeFileSync(join(staging, name), content);
    await mtool("mcopy", join(staging, name), `::/${name}`);
  }
  rmSync(staging, { recursive: true });
}

/** The test guest's first and only file system: busybox and our init. */
function guestInitrd(tools: Tools): Buffer {
  const entries: CpioEntry[] = [
    ...["bin", "dev"].map((path) => ({ path, mode: DIRECTORY })),
    { path: "dev/console", mode: CHARACTER_DEVICE, device: [5, 1] },
    { path: "bin/busybox", mode: EXECUTABLE, data: readFileSync(tools.path("/usr/bin/busybox")) },
    { path: "init", mode: EXECUTABLE, data: readFileSync(join(GUEST, "init")) },
  ];
  return gzipSync(cpio(entries), { level: 9 });
}
