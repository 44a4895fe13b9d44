/** `npm run build`: makes `dist/`. See `--help`. */

import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { buildAgent } from "./agent.ts";
import { cacheDir, digest, removeEntry } from "./cache.ts";
import { assertHost } from "./debian.ts";
import { buildBusybox, buildClock, buildFlush, buildQemu } from "./from-source.ts";
import { buildGuestKernel, buildKernel } from "./kernel.ts";
import { manifest } from "./manifest.ts";
import { PROJECT } from "./paths.ts";
import { clock, progress } from "./progress.ts";
import { buildRamdisk, buildSystem, type System } from "./ramdisk.ts";
import { buildRoot } from "./root.ts";

const PARTS = ["agent", "kernel", "guest-kernel", "qemu", "ramdisk"] as const;
type Part = (typeof PARTS)[number];

const USAGE = `usage: npm run build -- [options]

Makes dist/: stubdom, stubdom-linux-kernel, stubdom-linux-ramdisk, manifest.json, and for
tests test-guest-kernel. What is slow is kept in ${cacheDir()}.

  --only PART            just this and what it needs: ${PARTS.join(", ")}
  --verify-reproducible  afterwards make agent and ramdisk again, from nothing, and compare
  --all                  with --verify-reproducible: kernels, QEMU and busybox too
  --refresh              forget the build root first: takes Debian's packages of today
  --help`;

/** The files of the image, whose sha256 must not depend on when and where they were built. */
const IMAGE = ["stubdom", "stubdom-linux-kernel", "stubdom-linux-ramdisk"] as const;

/** Puts a file in place in one step: somebody may be booting the one that is there. */
function write(content: string | Uint8Array, dist: string, name: string, mode = 0o644): void {
  const to = join(dist, name);
  const beside = `${to}.${process.pid}.tmp`;
  writeFileSync(beside, content, { mode });
  renameSync(beside, to);
}

function install(from: string, dist: string, name: string): void {
  write(readFileSync(from), dist, name, statSync(from).mode & 0o777);
}

/** Builds the wanted parts into `dist`. Steps that do not need each other run side by side. */
async function buildInto(dist: string, only: Part | undefined): Promise<void> {
  const wants = (part: Part): boolean => only === undefined || only === part;
  mkdirSync(dist, { recursive: true });
  const root = await buildRoot();
  const agent = async (): Promise<void> => {
    const { program, metafile } = await buildAgent(root);
    install(program, dist, "stubdom");
    install(metafile, dist, "stubdom.meta.json");
  };
  const kernel = async (): Promise<void> => {
    install((await buildKernel(root)).image, dist, "stubdom-linux-kernel");
  };
  const guestKernel = async (): Promise<void> => {
    install((await buildGuestKernel(root)).image, dist, "test-guest-kernel");
  };
  const trees = (): Promise<string[]> =>
    Promise.all([buildQemu(root), buildBusybox(root), buildClock(root), buildFlush(root)]);
  const system = async (): Promise<System> => buildSystem(root, await trees());
  const ramdisk = async (): Promise<void> => {
    const [made] = await Promise.all([system(), agent()]);
    const packed = await buildRamdisk(root, join(dist, "stubdom"), made);
    write(packed.image, dist, "stubdom-linux-ramdisk");
    if (only !== undefined) return;
    await kernels;
    const files = Object.fromEntries(IMAGE.map((name) => [name, join(dist, name)]));
    const text = manifest({ root, files, metafile: join(dist, "stubdom.meta.json"), ramdisk: packed });
    write(text, dist, "manifest.json");
  };
  const kernels = wants("kernel") ? kernel() : undefined;
  await Promise.all([
    kernels,
    wants("guest-kernel") ? guestKernel() : undefined,
    wants("ramdisk") ? ramdisk() : undefined,
    only === "agent" ? agent() : undefined,
    only === "qemu" ? trees() : undefined,
  ]);
}

/** Says what was made. */
function sizes(dist: string): void {
  for (const name of [...IMAGE, "test-guest-kernel"].filter((n) => existsSync(join(dist, n)))) {
    progress.note(`${String(statSync(join(dist, name)).size).padStart(9)}  dist/${name}`);
  }
}

/**
 * Builds a second time with an empty cache that is given the build root only (and, unless `all`, what is slow)
 * and compares. Throws when a file of the image differs.
 */
async function verifyReproducible(dist: string, all: boolean): Promise<void> {
  const again = mkdtempSync(join(tmpdir(), "stubdom-again-"));
  const cache = cacheDir();
  const before = process.env.XDG_CACHE_HOME;
  try {
    process.env.XDG_CACHE_HOME = again;
    mkdirSync(cacheDir());
    const given = all
      ? /^(build-root|linux-source)-[0-9a-f]{16}$/
      : /^(build-root|kernel|guest-kernel|qemu|busybox)-[0-9a-f]{16}$/;
    for (const name of readdirSync(cache).filter((n) => given.test(n)))
      symlinkSync(join(cache, name), join(cacheDir(), name));
    const second = join(again, "dist");
    await buildInto(second, undefined);
    const hash = (dir: string, name: string): string => digest({ file: readFileSync(join(dir, name)) });
    const compared = [...IMAGE, "test-guest-kernel", "manifest.json"];
    const differ = compared.filter((name) => hash(dist, name) !== hash(second, name));
    if (differ.length > 0)
      throw new Error(`a second build gave other bytes for ${differ.join(", ")}; see ${second}`);
    rmSync(again, { recursive: true });
    progress.note(`the second build gave the same ${compared.join(", ")}`);
  } finally {
    if (before === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = before;
  }
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: "string" },
      "verify-reproducible": { type: "boolean", default: false },
      all: { type: "boolean", default: false },
      refresh: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return;
  }
  const only = PARTS.find((part) => part === values.only);
  if (values.only !== undefined && only === undefined)
    throw new Error(`no part "${values.only}"\n\n${USAGE}`);
  const started = Date.now();
  const dist = join(PROJECT, "dist");
  assertHost();
  if (values.refresh && existsSync(cacheDir())) {
    for (const name of readdirSync(cacheDir()).filter((n) => /^build-root-[0-9a-f]{16}$/.test(n))) {
      await removeEntry(join(cacheDir(), name), started);
    }
  }
  await buildInto(dist, only);
  sizes(dist);
  if (values["verify-reproducible"]) await verifyReproducible(dist, values.all);
  progress.note(`built in ${clock(Date.now() - started)}`);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));
main().catch((error: unknown) => {
  progress.note(error instanceof Error ? error.message : String(error));
  process.exit(1);
});
