/**
 * The ramdisk: everything that the stubdom's one file system holds, depending on nothing but its contents.
 *
 * It is two cpio archives, each compressed, one behind the other, which the kernel unpacks in turn (its
 * buffer-format.rst: `initramfs := ("\0" | cpio_archive | cpio_gzip_archive)*`): first what seldom changes,
 * QEMU and the rest of the system, whose compression takes long; then the agent and the overlay.
 */

import {
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { cached, digest } from "./cache.ts";
import { CHARACTER_DEVICE, type CpioEntry, cpio, DIRECTORY, EXECUTABLE, REGULAR, SYMLINK } from "./cpio.ts";
import { runInRoot } from "./debian.ts";
import { removeTrees } from "./exec.ts";
import type { Tree } from "./from-source.ts";
import { PROJECT } from "./paths.ts";
import { progress } from "./progress.ts";
import type { BuildRoot } from "./root.ts";

/** Where the agent mounts things, and the parents of what is not in a tree. */
const DIRECTORIES = ["bin", "dev", "proc", "root", "run", "sys", "tmp"] as const;

/**
 * Run in the build root: copies what the programs in /source are linked with, at the paths where ld.so looks, and
 * says which package each is from.
 */
const LIBRARIES = `
find /source -type f -perm -100 | while read -r program; do ldd "$program"; done |
  sed -nE 's|^.*[[:space:]](/[^ ]+) \\(0x[0-9a-f]+\\)$|\\1|p' | sort -u >/tmp/list
while read -r library; do
  install -D -m 755 "$library" "/out$library"
  strip --strip-unneeded "/out$library"
  dpkg-query --search "$(realpath "$library")" | cut -d: -f1 >>/tmp/packages
done </tmp/list
sort -u /tmp/packages >/out/packages
`;

/**
 * The kernel unpacks with a window of this size in memory (1 << 23 bytes): more of it would not fit beside the
 * unpacked files while a stubdom of 64 MiB starts.
 */
const COMPRESS = `
zstd --quiet --ultra -22 --zstd=wlog=23 --single-thread --no-progress --rm /build/cpio -o /build/cpio.zst
`;

/** A tree of the libraries that the programs of other trees need, and the Debian packages they came from. */
async function libraries(
  root: BuildRoot,
  trees: readonly Tree[],
): Promise<{ tree: Tree; packages: string[] }> {
  const key = digest({ script: LIBRARIES, versions: root.versions, trees: trees.join("\n") });
  const entry = await cached("libraries", key, async (dir, log) => {
    await progress.step("libraries", async (step) => {
      const out = join(dir, "tree");
      const programs = join(dir, "programs");
      mkdirSync(out);
      mkdirSync(programs);
      for (const [index, tree] of trees.entries()) {
        for (const { path, mode, data } of entriesOf(tree)) {
          if (mode === EXECUTABLE && data !== undefined) {
            writeFileSync(join(programs, `${index}-${path.replaceAll("/", "-")}`), data, { mode: 0o755 });
          }
        }
      }
      await runInRoot(root.path, LIBRARIES, {
        log,
        step,
        binds: { [programs]: "/source", [out]: "/out" },
      });
      renameSync(join(out, "packages"), join(dir, "packages"));
      await removeTrees(programs);
    });
  });
  const packages = readFileSync(join(entry, "packages"), "utf8").trim().split("\n");
  return { tree: join(entry, "tree"), packages };
}

/** Files, links and directories below a directory; owners and times of the checkout do not matter. */
function entriesOf(directory: string, below = ""): CpioEntry[] {
  return readdirSync(join(directory, below)).flatMap((name): CpioEntry[] => {
    const path = below === "" ? name : `${below}/${name}`;
    const from = join(directory, path);
    const stat = lstatSync(from);
    if (stat.isDirectory()) return [{ path, mode: DIRECTORY }, ...entriesOf(directory, path)];
    if (stat.isSymbolicLink()) return [{ path, mode: SYMLINK, data: Buffer.from(readlinkSync(from)) }];
    if (!stat.isFile()) throw new Error(`${from}: neither file, directory nor link`);
    return [{ path, mode: (stat.mode & 0o100) === 0 ? REGULAR : EXECUTABLE, data: readFileSync(from) }];
  });
}

/** The entries as a compressed archive; `name` is that of the cache entry and of the step. */
async function archive(root: BuildRoot, name: string, entries: readonly CpioEntry[]): Promise<Buffer> {
  const plain = cpio([...entries].sort((a, b) => (a.path < b.path ? -1 : 1)));
  const key = digest({ script: COMPRESS, versions: root.versions, plain });
  const entry = await cached(name, key, (dir, log) =>
    progress.step(name, async (step) => {
      writeFileSync(join(dir, "cpio"), plain);
      await runInRoot(root.path, COMPRESS, { log, step, binds: { [dir]: "/build" } });
    }),
  );
  return readFileSync(join(entry, "cpio.zst"));
}

export interface Ramdisk {
  readonly image: Buffer;
  readonly entries: readonly CpioEntry[];
  /** Debian packages whose libraries are inside. */
  readonly packages: readonly string[];
}

/** The part that does not depend on the agent: the trees built from source and their libraries. */
export type System = Ramdisk;

/** Packs the trees built from source and the libraries that they need. */
export async function buildSystem(root: BuildRoot, trees: readonly Tree[]): Promise<System> {
  const { tree, packages } = await libraries(root, trees);
  const entries = [tree, ...trees].flatMap((directory) => entriesOf(directory));
  const once = [...new Map(entries.map((entry) => [entry.path, entry])).values()];
  return { image: await archive(root, "system", once), entries: once, packages };
}

/** Puts the agent and `rootfs-overlay/` behind the system. What is in both is taken from the overlay. */
export async function buildRamdisk(root: BuildRoot, agent: string, system: System): Promise<Ramdisk> {
  const entries: CpioEntry[] = [
    ...DIRECTORIES.map((path) => ({ path, mode: DIRECTORY })),
    { path: "dev/console", mode: CHARACTER_DEVICE, device: [5, 1] },
    { path: "init", mode: EXECUTABLE, data: readFileSync(agent) },
    { path: "bin/stubdom", mode: SYMLINK, data: Buffer.from("../init") },
    ...entriesOf(join(PROJECT, "rootfs-overlay")),
  ];
  const image = Buffer.concat([system.image, await archive(root, "ramdisk", entries)]);
  return { image, entries: [...system.entries, ...entries], packages: system.packages };
}
