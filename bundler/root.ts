/** The build root: Debian 13 with the compilers, the libraries and the source packages of everything we ship. */

import { readdirSync } from "node:fs";
import { join } from "node:path";
import { debianRoot } from "./debian.ts";
import { capture } from "./exec.ts";

const PACKAGES = [
  // compilers and what the kernel's makefiles call
  "build-essential",
  "dpkg-dev",
  "pkg-config",
  "bc",
  "bison",
  "flex",
  "libelf-dev",
  "libssl-dev",
  "kmod",
  "cpio",
  "rsync",
  "xz-utils",
  "zstd",
  "bzip2",
  "ca-certificates",
  "linux-source-6.12",
  // agent
  "quickjs",
  "libquickjs",
  "libxen-dev",
  // QEMU
  "python3",
  "python3-venv",
  "python3-pycotap",
  "ninja-build",
  "meson",
  "libglib2.0-dev",
  "libpixman-1-dev",
  "libseccomp-dev",
  "liburing-dev",
  "libaio-dev",
  "zlib1g-dev",
  "seabios",
  "ipxe-qemu",
] as const;

const SOURCES = ["qemu", "busybox"] as const;

/** The build root and the exact versions in it, which are part of the key of everything made with it. */
export interface BuildRoot {
  readonly path: string;
  /** Installed packages: `name=version` lines sorted by name. */
  readonly versions: string;
  /** Source packages in `/usr/src`: the same, `name=version`. */
  readonly sources: string;
}

/** The build root, made if the cache has none. Read-only to everybody. */
export async function buildRoot(): Promise<BuildRoot> {
  const path = await debianRoot({
    name: "build-root",
    suite: "trixie",
    variant: "apt",
    include: PACKAGES,
    sources: SOURCES,
    // Places for `runInRoot` to bind to.
    options: ['--customize-hook=mkdir -p "$1/build" "$1/source" "$1/out" "$1/recipe"'],
  });
  return { path, versions: await packageVersions(path), sources: sourceVersions(path) };
}

/** Versions of the packages in a root, as `name=version` lines sorted by name. */
export async function packageVersions(root: string): Promise<string> {
  const format = "$" + "{Package}=$" + "{Version}\\n";
  const list = await capture(["chroot", root, "dpkg-query", "--show", `--showformat=${format}`]);
  return [...new Set(list.trim().split("\n"))].sort().join("\n");
}

/** Versions of the source packages in a root's `/usr/src`, told by the names of their .dsc files. */
function sourceVersions(root: string): string {
  const files = readdirSync(join(root, "usr/src")).filter((name) => name.endsWith(".dsc"));
  return files
    .map((name) => name.replace(/\.dsc$/, "").replace("_", "="))
    .sort()
    .join("\n");
}

/** The version of one package of a list made by {@link packageVersions}. */
export function versionOf(versions: string, name: string): string {
  const line = versions.split("\n").find((l) => l.startsWith(`${name}=`));
  if (line === undefined) throw new Error(`the build root has no package ${name}`);
  return line.slice(name.length + 1);
}
