/** Linux from Debian's source package, unpatched: the stubdom's kernel, and the one that test guests boot. */

import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { cached, digest } from "./cache.ts";
import { runInRoot } from "./debian.ts";
import { removeTrees } from "./exec.ts";
import { PROJECT } from "./paths.ts";
import { progress } from "./progress.ts";
import { type BuildRoot, versionOf } from "./root.ts";

/** Debian's package that holds the source, with Debian's own patches applied. */
export const LINUX_PACKAGE = "linux-source-6.12";

/**
 * Much of the source is for other machines; leaving it packed saves minutes of writing and a gigabyte of cache.
 * Other architectures' Kconfig files stay, kconfig reads them.
 */
const UNPACK = `
cd /build
tar --extract --xz --strip-components=1 --file=/usr/src/${LINUX_PACKAGE}.tar.xz \\
  --exclude='*/Documentation/*.rst' --exclude='*/Documentation/*.yaml' --exclude='*/drivers/gpu/drm/amd/include/*' \\
  $(for arch in alpha arc arm arm64 csky hexagon loongarch m68k microblaze mips nios2 openrisc parisc powerpc \\
      riscv s390 sh sparc um xtensa; do echo "--exclude=*/arch/$arch/*.[chS] --exclude=*/arch/$arch/*.dts*"; done)
`;

/** /source: the tree, read-only in effect; /recipe/config: our lines; /build: objects. */
const COMPILE = `
cd /source
export KBUILD_BUILD_TIMESTAMP="Thu Jan  1 00:00:00 UTC 1970" KBUILD_BUILD_USER=build KBUILD_BUILD_HOST=linux-stubdom
make -s O=/build KCONFIG_ALLCONFIG=/recipe/config allnoconfig
# kconfig drops silently what a dependency forbids; a line of ours that is lost is an error of ours.
grep -E '^CONFIG_' /recipe/config | while IFS= read -r line; do
  grep -qxF -e "$line" /build/.config || { echo "kconfig did not take: $line"; touch /build/lost; }
done
if [ -e /build/lost ]; then exit 1; fi
make O=/build -j"$JOBS" bzImage
`;

/** The directory with the unpacked source. */
async function linuxSource(root: BuildRoot): Promise<string> {
  const key = digest({ script: UNPACK, version: versionOf(root.versions, LINUX_PACKAGE) });
  return cached("linux-source", key, (dir, log) =>
    progress.step("linux source", (step) =>
      runInRoot(root.path, UNPACK, { log, step, binds: { [dir]: "/build" } }),
    ),
  );
}

export interface Kernel {
  readonly image: string;
  /** The whole configuration that kconfig made of ours. */
  readonly config: string;
}

/** Builds a kernel from configuration lines; `name` is that of the cache entry, the step and the log. */
async function kernel(root: BuildRoot, name: string, config: string): Promise<Kernel> {
  const key = digest({ unpack: UNPACK, compile: COMPILE, versions: root.versions, config });
  const entry = await cached(name, key, async (dir, log) => {
    const source = await linuxSource(root);
    await progress.step(name, async (step) => {
      const recipe = join(dir, "recipe");
      const objects = join(dir, "objects");
      mkdirSync(recipe);
      mkdirSync(objects);
      writeFileSync(join(recipe, "config"), config);
      await runInRoot(root.path, COMPILE, {
        log,
        step,
        binds: { [source]: "/source", [recipe]: "/recipe", [objects]: "/build" },
        env: { JOBS: String(availableParallelism()) },
      });
      copyFileSync(join(objects, "arch/x86/boot/bzImage"), join(dir, "bzImage"));
      copyFileSync(join(objects, ".config"), join(dir, "config"));
      await removeTrees(recipe, objects);
    });
  });
  return { image: join(entry, "bzImage"), config: join(entry, "config") };
}

/** The stubdom's kernel: every `.config` fragment in `bundler/kernel/`, in the order of their names. */
export async function buildKernel(root: BuildRoot): Promise<Kernel> {
  const dir = join(PROJECT, "bundler/kernel");
  const fragments = readdirSync(dir)
    .filter((name) => name.endsWith(".config"))
    .sort();
  return kernel(root, "kernel", fragments.map((name) => readFileSync(join(dir, name), "utf8")).join("\n"));
}

/** A small kernel for HVM guests in tests: one that knows nothing of Xen, or one with PV drivers. */
export async function buildGuestKernel(root: BuildRoot, kind: "plain" | "pv" = "plain"): Promise<Kernel> {
  const files = kind === "plain" ? ["kernel.config"] : ["kernel.config", "pv.config"];
  const lines = files.map((name) => readFileSync(join(PROJECT, "test/xen/guest", name), "utf8"));
  return kernel(root, kind === "plain" ? "guest-kernel" : "pv-guest-kernel", lines.join("\n"));
}
