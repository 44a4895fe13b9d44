/** The ramdisk of the stub domain whose init is a shell script: ours, with `test/xen/shell-stubdom` added. */

import { readdirSync, readFileSync, realpathSync } from "node:fs";
import { basename, join } from "node:path";
import {
  CHARACTER_DEVICE,
  type CpioEntry,
  cpio,
  DIRECTORY,
  EXECUTABLE,
  SYMLINK,
} from "../../bundler/cpio.ts";
import { capture } from "../../bundler/exec.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { dom0Root } from "./dom0-image.ts";
import { labTools } from "./tools.ts";

/** What a kernel command line needs for this ramdisk. */
export const SHELL_STUBDOM_CMDLINE = "rdinit=/shell/init";

const LOADER = "/lib64/ld-linux-x86-64.so.2";
/** What the script uses of busybox. */
const APPLETS = ["brctl", "cat", "dmesg", "ip", "mount", "sed", "stty", "tunctl", "usleep"];
const XENSTORE = ["xenstore-read", "xenstore-write", "xenstore-list"];

/**
 * Linux unpacks several archives one after the other, so this is the stub domain's ramdisk and then ours; both
 * start at a multiple of 4 bytes.
 */
export async function shellStubdomRamdisk(extra: readonly string[] = []): Promise<Buffer> {
  const base = readFileSync(join(PROJECT, "dist/stubdom-linux-ramdisk"));
  const root = await dom0Root("trixie");
  const tools = await labTools();
  const programs = ["/usr/bin/xenstore-read", "/usr/lib/xen-4.20/bin/vchan-socket-proxy", ...extra];
  const libraries = new Set<string>();
  for (const program of programs) {
    const command = [join(root, LOADER), "--library-path", join(root, "usr/lib/x86_64-linux-gnu"), "--list"];
    const list = await capture([...command, join(root, program)]);
    for (const [, path] of list.matchAll(/=> (\S+) /g)) if (path !== undefined) libraries.add(path);
  }
  const file = (path: string, from: string): CpioEntry => ({
    path,
    mode: EXECUTABLE,
    data: readFileSync(realpathSync(from)),
  });
  const own = join(PROJECT, "test/xen/shell-stubdom");
  const entries: CpioEntry[] = [
    ...["shell", "shell/bin", "shell/lib"].map((path) => ({ path, mode: DIRECTORY })),
    ...readdirSync(own).map((name) => file(`shell/${name}`, join(own, name))),
    file("shell/busybox", tools.path("/usr/bin/busybox")),
    { path: "dev/kmsg", mode: CHARACTER_DEVICE, device: [1, 11] },
    ...APPLETS.map((name) => ({ path: `shell/bin/${name}`, mode: SYMLINK, data: Buffer.from("../busybox") })),
    { path: "shell/bin/qemu-system-i386", mode: SYMLINK, data: Buffer.from("/usr/bin/qemu-system-i386") },
    ...programs.map((program) => file(`shell/bin/${basename(program)}`, join(root, program))),
    ...XENSTORE.slice(1).map((name) => ({
      path: `shell/bin/${name}`,
      mode: SYMLINK,
      data: Buffer.from("xenstore-read"),
    })),
    ...[...libraries].sort().map((path) => file(`shell/lib/${basename(path)}`, path)),
  ];
  return Buffer.concat([base, Buffer.alloc((4 - (base.length % 4)) % 4), cpio(entries)]);
}
