/**
 * Programs of the emulated host, taken from Debian 13 whatever the machine runs: QEMU 10, and what makes disk
 * images; QEMU 7.2 from Debian 12 beside it. They run through their own dynamic linker, where they are: no root
 * rights, no chroot, no mount.
 */

import { join } from "node:path";
import { debianRoot } from "../../bundler/debian.ts";
import type { Dom0Release } from "./dom0-image.ts";

const PACKAGES = [
  "qemu-system-x86",
  "qemu-utils",
  "e2fsprogs",
  "mtools",
  "syslinux",
  "syslinux-common",
  "busybox-static",
  "cpio",
] as const;

export class Tools {
  constructor(
    readonly root: string,
    readonly suite: Dom0Release = "trixie",
  ) {}

  /** The command line that runs a program of the root, `path` as seen in the root. */
  command(path: string, ...args: readonly string[]): string[] {
    return [
      this.path("/usr/lib64/ld-linux-x86-64.so.2"),
      "--library-path",
      this.path("/usr/lib/x86_64-linux-gnu"),
      this.path(path),
      ...args,
    ];
  }

  /** QEMU with its firmware. */
  qemu(...args: readonly string[]): string[] {
    const data = ["/usr/share/qemu", "/usr/share/seabios"].flatMap((dir) => ["-L", this.path(dir)]);
    return this.command("/usr/bin/qemu-system-x86_64", ...data, ...args);
  }

  /** Environment for {@link qemu}: where its loadable parts are. */
  get environment(): Record<string, string> {
    return { QEMU_MODULE_DIR: this.path("/usr/lib/x86_64-linux-gnu/qemu") };
  }

  /** Where QEMU is to write a machine's state to. */
  saveTo(file: string): string {
    return this.suite === "bookworm" ? `exec:cat > '${file}'` : `file:${file}`; // QEMU 7.2 has no file:
  }

  /** Where QEMU is to read a machine's state from. */
  loadFrom(file: string): string {
    return this.suite === "bookworm" ? `exec:cat '${file}'` : `file:${file}`;
  }

  /** A file of the root, as this machine sees it. */
  path(path: string): string {
    return join(this.root, path);
  }
}

let made: Promise<Tools> | undefined;

/** The tools, made on first use. */
export function labTools(): Promise<Tools> {
  made ??= debianRoot({ name: "lab-tools", suite: "trixie", variant: "minbase", include: PACKAGES }).then(
    (root) => new Tools(root),
  );
  return made;
}

let older: Promise<Tools> | undefined;

/**
 * QEMU that is the machine of a release's host. From 9.1 to at least 10.0 a guest's read of any control register is taken
 * for one of CR0, which Xen intercepts (decode_op() in target/i386/tcg/decode-new.c.inc asks for the intercept's number
 * where it means to ask whether there is one, and that of CR0 is 0). Xen then reads the register in the guest's place, and
 * before 4.20.4 its own copy of CR2 is one that nobody writes: the guest's handler of page faults finds 0 there and the guest
 * is lost at its first. QEMU 7.2 has no such decoder, and takes twice the time for what dom0 does.
 */
export function emulatorTools(release: Dom0Release): Promise<Tools> {
  if (release === "trixie") return labTools();
  older ??= debianRoot({
    name: "lab-emulator-bookworm",
    suite: "bookworm",
    variant: "minbase",
    include: ["qemu-system-x86", "qemu-utils"],
  }).then((root) => new Tools(root, "bookworm"));
  return older;
}
