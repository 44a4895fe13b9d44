/** Debian roots made by mmdebstrap, whatever Debian or Ubuntu the host is, and commands run inside them. */

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { cached, digest } from "./cache.ts";
import { capture, run } from "./exec.ts";
import { progress, type Step } from "./progress.ts";

/** What Debian's archives are signed with; Ubuntu's apt has other keys. */
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";

export interface DebianRoot {
  /** Name of the cache entry and of the log. */
  readonly name: string;
  readonly suite: "bookworm" | "trixie";
  /** mmdebstrap's variant: which packages are there beside `include`. */
  readonly variant: "apt" | "minbase" | "essential";
  readonly include: readonly string[];
  /** Source packages whose files are put into `/usr/src` of the root. */
  readonly sources?: readonly string[];
  /** Further arguments for mmdebstrap, such as `--customize-hook=...`. */
  readonly options?: readonly string[];
}

/** What a missing program is called in apt; used for one message that a person can act on. */
const NEEDED: Readonly<Record<string, string>> = {
  "/usr/bin/mmdebstrap": "mmdebstrap",
  [KEYRING]: "debian-archive-keyring",
  "/usr/bin/mount": "mount",
  "/usr/bin/unshare": "util-linux",
  "/usr/bin/flock": "util-linux",
  "/usr/bin/setpriv": "util-linux",
};

/** Throws, with the command that helps, unless this host can make and enter roots. */
export function assertHost(): void {
  const packages = new Set(
    Object.entries(NEEDED).flatMap(([file, name]) => (existsSync(file) ? [] : [name])),
  );
  if (packages.size > 0) {
    throw new Error(`the build needs: apt-get install ${[...packages].join(" ")}`);
  }
  if (process.getuid?.() !== 0) {
    throw new Error("the build makes and enters a Debian root, which needs root rights: run it with sudo");
  }
}

/** What a command is run with to take its mounts and its children with it when it ends, or we do. */
const NAMESPACE = [
  ...["setpriv", "--pdeathsig", "KILL"],
  "unshare",
  "--mount",
  "--propagation=private",
  "--pid",
  "--fork",
  "--kill-child=KILL",
  "--",
];

/**
 * Shell command that writes the root's apt sources: the suite and its security archive, which stands beside
 * the mirror under `-security`. The mirror is the one that mmdebstrap has put there.
 */
function aptSources(suite: DebianRoot["suite"], withSources: boolean): string {
  const types = withSources ? ["deb", "deb-src"] : ["deb"];
  const lines = types.flatMap((type) => [
    `${type} $mirror ${suite} main`,
    `${type} $mirror-security ${suite}-security main`,
  ]);
  const list = '"$1/etc/apt/sources.list"';
  return [
    `mirror=$(sed -n "s/^deb \\(\\[[^]]*\\] \\)\\?\\([^ ]*\\) .*/\\2/p" ${list} | head -n 1)`,
    `printf "%s\\n" ${lines.map((line) => `"${line}"`).join(" ")} > ${list}`,
  ].join("; ");
}

/**
 * A root directory with the packages asked for, from the cache or made now. It is shared: nobody may write
 * into it. Its packages are those that the mirror had when it was made; remove the cache entry to renew it.
 */
export async function debianRoot(spec: DebianRoot): Promise<string> {
  const { name, suite, variant, include, sources = [], options = [] } = spec;
  const hooks =
    sources.length === 0
      ? []
      : [
          `--customize-hook=chroot "$1" sh -c "cd /usr/src && apt-get source --download-only ${sources.join(" ")}"`,
        ];
  const command = [
    "mmdebstrap",
    "--mode=root",
    `--keyring=${KEYRING}`,
    `--variant=${variant}`,
    "--aptopt=Acquire::Retries 5",
    `--include=${include.join(",")}`,
    // Nobody reads these here, and they are a quarter of the root.
    "--dpkgopt=path-exclude=/usr/share/man/*",
    "--dpkgopt=path-exclude=/usr/share/doc/*",
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    "--dpkgopt=path-exclude=/usr/share/locale/*",
    `--setup-hook=${aptSources(suite, sources.length > 0)}`,
    ...hooks,
    ...options,
    suite,
  ];
  // Without one mmdebstrap takes Debian's own. What comes from it is the same, so it is no part of the key.
  const mirror = process.env.LINUX_STUBDOM_MIRROR?.replace(/\/+$/, "");
  const entry = await cached(name, digest({ command: command.join("\0") }), async (dir, log) => {
    assertHost();
    await progress.step(`${name} (mmdebstrap ${suite})`, async (step) => {
      // Whatever mmdebstrap mounts goes with the namespace, even when it is killed.
      const target = [join(dir, "root"), ...(mirror ? [mirror] : [])];
      await run([...NAMESPACE, ...command, ...(await proxyOption()), ...target], { log, step });
    });
  });
  return join(entry, "root");
}

/** The machine's own proxy for apt: mmdebstrap has apt read the configuration of the new root alone. */
async function proxyOption(): Promise<string[]> {
  const dump = await capture(["apt-config", "dump", "--format", "%v%n", "Acquire::http::Proxy"]);
  // Lines that follow are hosts that have another one, or none.
  const [proxy = ""] = dump.split("\n");
  return proxy === "" ? [] : [`--aptopt=Acquire::http::Proxy "${proxy}"`];
}

/** What is in a root, for the keys of what is made from it: one that was renewed is where the old one was. */
export function rootContents(root: string): Buffer {
  return readFileSync(join(root, "var/lib/dpkg/status"));
}

export interface Inside {
  readonly log: string;
  readonly step?: Step;
  /** Host directory -> directory of the root; writable there. */
  readonly binds: Readonly<Record<string, string>>;
  /** Added to the few fixed variables that make a build the same everywhere. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Seconds since the epoch that every timestamp in the image has. */
export const SOURCE_DATE_EPOCH = 0;

/**
 * The mounts of a root, made in a mount namespace of their own so that nothing stays behind, whatever happens.
 * The root itself is read-only there. Arguments: root, number of binds, pairs of bind, command.
 */
const ENTER = `
set -eu
root=$1; count=$2; shift 2
mount --bind "$root" "$root"
while [ "$count" -gt 0 ]; do
  [ -d "$root$2" ] || { echo "no directory $2 in the root" >&2; exit 1; }
  mount --bind "$1" "$root$2"
  shift 2; count=$((count - 1))
done
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
exec chroot "$root" "$@"
`;

/** Runs a shell script (`sh -eu`) inside a root; rejects when it fails, see {@link run}. */
export async function runInRoot(root: string, script: string, options: Inside): Promise<void> {
  const env = {
    PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
    HOME: "/tmp",
    LC_ALL: "C.UTF-8",
    TZ: "UTC",
    SOURCE_DATE_EPOCH: String(SOURCE_DATE_EPOCH),
    ...options.env,
  };
  const binds = Object.entries(options.binds);
  await run(
    [
      ...NAMESPACE,
      "sh",
      "-c",
      ENTER,
      "enter",
      root,
      String(binds.length),
      ...binds.flat(),
      "/usr/bin/env",
      "-i",
      ...Object.entries(env).map(([key, value]) => `${key}=${value}`),
      "nice",
      "sh",
      "-eu",
      "-c",
      script,
    ],
    { log: options.log, ...(options.step === undefined ? {} : { step: options.step }) },
  );
}
