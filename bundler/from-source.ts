/** Recipes of the image's programs. QEMU and busybox are of Debian's source packages: unpatched, cut down by their own configuration. */

import { mkdirSync, readdirSync, readFileSync, renameSync } from "node:fs";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { cached, digest } from "./cache.ts";
import { runInRoot } from "./debian.ts";
import { removeTrees } from "./exec.ts";
import { PROJECT } from "./paths.ts";
import { progress } from "./progress.ts";
import type { BuildRoot } from "./root.ts";

/** A directory whose files belong into the image at the same paths. */
export type Tree = string;

/**
 * Runs the `build.sh` of a recipe directory in the root. The whole directory is part of the entry's key.
 * Besides what the script says: JOBS is the number of processors.
 */
async function fromSource(root: BuildRoot, name: string, recipe: string): Promise<Tree> {
  const files = Object.fromEntries(
    readdirSync(recipe)
      .sort()
      .map((file) => [file, readFileSync(join(recipe, file))]),
  );
  const key = digest({ versions: root.versions, sources: root.sources, ...files });
  const entry = await cached(name, key, (dir, log) =>
    progress.step(name, async (step) => {
      const build = join(dir, "build");
      const out = join(dir, "out");
      mkdirSync(build);
      mkdirSync(out);
      await runInRoot(root.path, readFileSync(join(recipe, "build.sh"), "utf8"), {
        log,
        step,
        binds: { [recipe]: "/recipe", [build]: "/build", [out]: "/out" },
        env: { JOBS: String(availableParallelism()) },
      });
      await removeTrees(build);
      renameSync(out, join(dir, "tree"));
    }),
  );
  return join(entry, "tree");
}

/** QEMU with the firmware files it insists on. */
export async function buildQemu(root: BuildRoot): Promise<Tree> {
  return fromSource(root, "qemu", join(PROJECT, "bundler/qemu"));
}

/** What QEMU is given in place of the C library's clock. */
export async function buildClock(root: BuildRoot): Promise<Tree> {
  return fromSource(root, "clock", join(PROJECT, "bundler/clock"));
}

/** What QEMU is given in place of the C library's flush. */
export async function buildFlush(root: BuildRoot): Promise<Tree> {
  return fromSource(root, "flush", join(PROJECT, "bundler/flush"));
}

/** The tools of the debug shell. */
export async function buildBusybox(root: BuildRoot): Promise<Tree> {
  return fromSource(root, "busybox", join(PROJECT, "bundler/busybox"));
}
