/**
 * Programs of the emulated host, taken from Debian 13 whatever the machine runs: QEMU 10 (QEMU 7.2's emulated
 * SVM kills one guest in four), and what makes disk images. They run through their own dynamic linker, where
 * they are: no root rights, no chroot, no mount.
 */

import { join } from "node:path";
import { debianRoot } from "../../bundler/debian.ts";

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
  constructor(readonly root: string) {}

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
