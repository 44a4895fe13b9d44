/**
 * What the emulated host boots: Xen, dom0's kernel, a small first ramdisk and dom0's disk, all from Debian's
 * packages as they come. Nothing in dom0 is patched or configured for this project; one line of `xl.conf` is there for the
 * emulator's sake (`dom0/init`).
 */

import { execFileSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { gunzipSync } from "node:zlib";
import { cached, digest } from "../../bundler/cache.ts";
import { type CpioEntry, cpio, DIRECTORY, EXECUTABLE, REGULAR } from "../../bundler/cpio.ts";
import { debianRoot, rootContents } from "../../bundler/debian.ts";
import { run } from "../../bundler/exec.ts";
import { progress } from "../../bundler/progress.ts";
import { labTools } from "./tools.ts";

/** Debian releases that dom0 can be: trixie has Xen 4.20 and QEMU 10.0, bookworm Xen 4.17 and QEMU 7.2. */
export type Dom0Release = "trixie" | "bookworm";

const XEN: Readonly<Record<Dom0Release, string>> = { trixie: "4.20", bookworm: "4.17" };

export interface Dom0Image {
  /** Xen as an uncompressed ELF, which QEMU's multiboot loader wants. */
  readonly xen: string;
  readonly kernel: string;
  readonly initrd: string;
  /** dom0's root file system, ext4, raw. Open it so that it stays as it is: it is shared. */
  readonly disk: string;
}

const PACKAGES = [
  "linux-image-amd64",
  "qemu-system-xen",
  "qemu-utils",
  "busybox-static",
  "udev",
  "kmod",
  "procps",
  "iproute2",
  "iputils-ping",
  "bridge-utils",
  "socat",
  "tcpdump",
  "dmsetup",
  "python3",
  "xz-utils",
] as const;

/** Drivers for hardware that the emulated host cannot have: three quarters of the kernel package. */
const ABSENT_HARDWARE = [
  "drivers/gpu",
  "drivers/infiniband",
  "drivers/media",
  "drivers/net/ethernet",
  "drivers/net/wireless",
  "sound",
] as const;

const DISK_MIB = 3072;

/** Modules of the first ramdisk; each brings what it depends on. ext4 asks for crc32c by name only. */
const EARLY_MODULES = ["crc32c_generic", "virtio_pci", "virtio_blk", "virtio_console", "ext4"] as const;

/** The root directory of dom0's packages: from the cache, or made now (about a minute and a half). */
export async function dom0Root(release: Dom0Release): Promise<string> {
  const xen = XEN[release];
  const excluded = ABSENT_HARDWARE.flatMap((dir) =>
    ["/lib", "/usr/lib"].map((lib) => `--dpkgopt=path-exclude=${lib}/modules/*/kernel/${dir}/*`),
  );
  return debianRoot({
    name: `dom0-root-${release}`,
    suite: release,
    variant: "minbase",
    include: [`xen-utils-${xen}`, `xen-hypervisor-${xen}-amd64`, ...PACKAGES],
    options: [
      ...excluded,
      // The lab has a first ramdisk of its own, which starts in a tenth of the time; Debian's is not made.
      "--dpkgopt=force-confold",
      '--essential-hook=mkdir -p "$1/etc/initramfs-tools"',
      '--essential-hook=echo update_initramfs=no > "$1/etc/initramfs-tools/update-initramfs.conf"',
    ],
  });
}

/** What to boot as dom0. */
export async function dom0Image(release: Dom0Release): Promise<Dom0Image> {
  const root = await dom0Root(release);
  const disk = await dom0Disk(release, root);
  const initrd = await dom0Initrd(release, root);
  return {
    xen: join(disk, "xen"),
    kernel: bootFile(root, "vmlinuz-"),
    initrd: join(initrd, "initrd"),
    disk: join(disk, "disk.ext4"),
  };
}

function bootFile(root: string, prefix: string): string {
  const name = readdirSync(join(root, "boot")).find((file) => file.startsWith(prefix));
  if (name === undefined) throw new Error(`no ${prefix}* in ${root}/boot`);
  return join(root, "boot", name);
}

/** What all that is made here depends on. */
function made(root: string) {
  return { root, packages: rootContents(root), recipe: readFileSync(import.meta.filename) };
}

/** The parts that are slow to make and depend on Debian's packages alone. */
async function dom0Disk(release: Dom0Release, root: string): Promise<string> {
  const tools = await labTools();
  return cached(
    `dom0-disk-${release}`,
    digest({ ...made(root), mib: String(DISK_MIB) }),
    async (dir, log) => {
      await progress.step(`dom0's disk (${release})`, async (step) => {
        const compressed = bootFile(root, `xen-${XEN[release]}-amd64.gz`);
        writeFileSync(join(dir, "xen"), gunzipSync(readFileSync(compressed)));
        const mkfs = tools.command("/usr/sbin/mkfs.ext4", "-q", "-F", "-L", "dom0", "-O", "^has_journal");
        const lazy = ["-E", "lazy_itable_init=1,root_owner=0:0"];
        await run([...mkfs, ...lazy, "-d", root, join(dir, "disk.ext4"), `${DISK_MIB}M`], {
          log,
          step,
        });
      });
    },
  );
}

/** The first ramdisk: busybox, the modules that reach the disk, and the lab's own files for dom0. */
async function dom0Initrd(release: Dom0Release, root: string): Promise<string> {
  const own = join(import.meta.dirname, "dom0");
  const files = readdirSync(own).sort();
  const contents = Object.fromEntries(files.map((name) => [name, readFileSync(join(own, name))]));
  return cached(`dom0-initrd-${release}`, digest({ ...made(root), ...contents }), async (dir) => {
    const tools = await labTools();
    const busybox = tools.path("/usr/bin/busybox");
    const modules = moduleClosure(root, EARLY_MODULES).map((path) => ({
      name: basename(path).replace(/\.xz$/, ""),
      data: path.endsWith(".xz")
        ? execFileSync(busybox, ["unxz", "-c", path], { maxBuffer: 64 << 20 })
        : readFileSync(path),
    }));
    const entries: CpioEntry[] = [
      ...["bin", "proc", "sys", "dev", "root", "modules", "lab"].map((path) => ({ path, mode: DIRECTORY })),
      { path: "bin/busybox", mode: EXECUTABLE, data: readFileSync(busybox) },
      ...modules.map(({ name, data }) => ({ path: `modules/${name}`, mode: REGULAR, data })),
      {
        path: "modules/order",
        mode: REGULAR,
        data: Buffer.from(modules.map(({ name }) => `${name}\n`).join("")),
      },
      { path: "init", mode: EXECUTABLE, data: readFileSync(join(own, "initrd-init")) },
      ...files.map((name) => ({
        path: `lab/${name}`,
        mode: EXECUTABLE,
        data: readFileSync(join(own, name)),
      })),
    ];
    writeFileSync(join(dir, "initrd"), cpio(entries));
  });
}

/** Files of the named modules and of all that they need, in an order in which they can be loaded. */
function moduleClosure(root: string, names: readonly string[]): string[] {
  const base = join(root, "usr/lib/modules");
  const [version] = readdirSync(base);
  if (version === undefined) throw new Error(`no kernel modules in ${base}`);
  const dependencies = new Map<string, string[]>();
  for (const line of readFileSync(join(base, version, "modules.dep"), "utf8").split("\n")) {
    const [path, rest] = line.split(":");
    if (path) dependencies.set(path, rest?.trim().split(" ").filter(Boolean) ?? []);
  }
  const ordered = new Set<string>();
  const visit = (path: string): void => {
    for (const needed of dependencies.get(path) ?? []) visit(needed);
    ordered.add(path);
  };
  for (const name of names) {
    const pattern = new RegExp(`/${name}\\.ko(\\.xz)?$`);
    const path = [...dependencies.keys()].find((candidate) => pattern.test(candidate));
    if (path !== undefined) visit(path); // built into this release's kernel otherwise
  }
  return [...ordered].map((path) => join(base, version, path));
}

/** A release by its name. Throws on a name that is none which the lab knows. */
export function dom0Release(name: string): Dom0Release {
  if (name === "trixie" || name === "bookworm") return name;
  throw new Error(`--dom0 ${name}: must be trixie or bookworm`);
}
