/** The program that measures in the guest, compiled from test/xen/guest/probe.c in the build root. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cached, digest } from "../../bundler/cache.ts";
import { runInRoot } from "../../bundler/debian.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { buildRoot } from "../../bundler/root.ts";

/** No C library, no notes, no tables: a few sectors of the guest's disk. */
export const COMPILE =
  "gcc -Wall -Wextra -Werror -Os -std=gnu11 -static -nostdlib -ffreestanding -fno-builtin -fno-stack-protector " +
  "-fno-pie -no-pie -fno-asynchronous-unwind-tables -Wl,--build-id=none -Wl,-z,noseparate-code -s -o probe probe.c";

export async function guestProbe(): Promise<Buffer> {
  const source = readFileSync(join(PROJECT, "test/xen/guest/probe.c"));
  const root = await buildRoot();
  const entry = await cached(
    "guest-probe",
    digest({ source, COMPILE, versions: root.versions }),
    async (dir, log) => {
      writeFileSync(join(dir, "probe.c"), source);
      await runInRoot(root.path, `cd /build\n${COMPILE}\n`, { log, binds: { [dir]: "/build" } });
    },
  );
  return readFileSync(join(entry, "probe"));
}
