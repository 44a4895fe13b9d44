/** `dist/manifest.json`: what the image is made of, exactly. Holds no time and no path, so it is reproducible. */

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { EXECUTABLE, REGULAR } from "./cpio.ts";
import { LINUX_PACKAGE } from "./kernel.ts";
import { PROJECT } from "./paths.ts";
import type { Ramdisk } from "./ramdisk.ts";
import { type BuildRoot, versionOf } from "./root.ts";

interface FileFacts {
  /** Bytes. */
  readonly size: number;
  readonly sha256: string;
}

function facts(data: Uint8Array): FileFacts {
  return { size: data.length, sha256: createHash("sha256").update(data).digest("hex") };
}

/** npm packages that esbuild put into the bundle, with their versions, by its metafile. */
function npmPackages(metafile: string): Record<string, string> {
  const { inputs } = JSON.parse(readFileSync(metafile, "utf8")) as { inputs: Record<string, unknown> };
  const names = Object.keys(inputs).flatMap(
    (path) => /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? [],
  );
  return Object.fromEntries(
    [...new Set(names)].sort().map((name) => {
      const file = join(PROJECT, "node_modules", name, "package.json");
      return [name, (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version];
    }),
  );
}

export interface Parts {
  readonly root: BuildRoot;
  /** Name in dist/ -> where the file is. */
  readonly files: Readonly<Record<string, string>>;
  readonly metafile: string;
  readonly ramdisk: Ramdisk;
}

/** The manifest's text. */
export function manifest({ root, files, metafile, ramdisk }: Parts): string {
  const { name, version } = JSON.parse(readFileSync(join(PROJECT, "package.json"), "utf8")) as Record<
    string,
    string
  >;
  const linked = [
    "libquickjs",
    "libxen-dev",
    "libc6-dev",
    "libglib2.0-dev",
    "libseccomp-dev",
    "liburing-dev",
    "libaio-dev",
  ];
  const firmware = ["seabios", "ipxe-qemu"];
  const installed = [
    LINUX_PACKAGE,
    ...ramdisk.packages,
    ...linked,
    "zlib1g-dev",
    "libpcre2-dev",
    ...firmware,
  ];
  const content = {
    name,
    version,
    files: Object.fromEntries(Object.entries(files).map(([file, path]) => [file, facts(readFileSync(path))])),
    debian: {
      /** Built here from these source packages. */
      sources: Object.fromEntries(root.sources.split("\n").map((line) => line.split("="))),
      /** Parts of these are in the image as Debian built them, or in the case of Linux hold its source. */
      packages: Object.fromEntries(
        [...new Set(installed)].sort().map((p) => [p, versionOf(root.versions, p)]),
      ),
      /** Everything that was installed where the image was built. */
      buildRoot: root.versions.split("\n"),
    },
    npm: npmPackages(metafile),
    ramdisk: Object.fromEntries(
      ramdisk.entries
        .filter(({ mode }) => mode === REGULAR || mode === EXECUTABLE)
        .map(({ path, data }) => [`/${path}`, facts(data ?? new Uint8Array())]),
    ),
  };
  return `${JSON.stringify(content, null, 2)}\n`;
}
