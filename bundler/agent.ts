/**
 * The agent: TypeScript -> one bundle (esbuild) -> QuickJS bytecode as a C array (qjsc) -> one static program
 * (gcc) with our C module, libquickjs and the static Xen libraries.
 */

import { copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { basename, join } from "node:path";
import { build, type Plugin } from "esbuild";
import { cached, digest } from "./cache.ts";
import { runInRoot } from "./debian.ts";
import { removeTrees } from "./exec.ts";
import { PROJECT } from "./paths.ts";
import { progress } from "./progress.ts";
import type { BuildRoot } from "./root.ts";

const NATIVE = join(PROJECT, "bundler/native");

/** Provided by our C code; everything else must be inside the bundle. */
const NATIVE_MODULE = "stubdom-native";

/** What needs more than QuickJS has, or would only be loaded, and what stands in for it. */
const ALIASES: Readonly<Record<string, string>> = {
  "@pinojs/redact": join(PROJECT, "bundler/shims/redact.ts"),
  "string-width": join(PROJECT, "bundler/shims/string-width.ts"),
};
/** yargs' browser build imports two packages from the network: the same ones come from npm. */
const FROM_NETWORK: readonly (readonly [RegExp, string])[] = [
  [/^https:\/\/[^/]+\/cliui@/, "cliui"],
  [/^https:\/\/[^/]+\/yargs-parser@/, "yargs-parser/browser"],
];

const fromNpm: Plugin = {
  name: "from-npm",
  setup(build) {
    build.onResolve({ filter: /^https:/ }, ({ path, resolveDir, importer }) => {
      const found = FROM_NETWORK.find(([pattern]) => pattern.test(path));
      if (found === undefined) return { errors: [{ text: `${importer} imports ${path} from the network` }] };
      return build.resolve(found[1], { resolveDir, kind: "import-statement" });
    });
  },
};

/** The project's version, which `agent/version.ts` expects as a constant. */
function version(): string {
  return (JSON.parse(readFileSync(join(PROJECT, "package.json"), "utf8")) as { version: string }).version;
}

interface Bundle {
  /** Name -> text of each module; `main.js` is where the program starts. */
  readonly modules: Readonly<Record<string, string>>;
  /** Those that are loaded by `import()`. */
  readonly lazy: readonly string[];
  /** What esbuild knows about it. */
  readonly metafile: string;
}

/**
 * The agent's modules: one for the start, one for each `import()`, and what those share. Rejects when they
 * would need anything that is not in them.
 */
async function bundle(entry: string): Promise<Bundle> {
  const result = await build({
    entryPoints: { main: entry },
    outdir: "/",
    splitting: true,
    chunkNames: "[name]-[hash]",
    absWorkingDir: PROJECT,
    bundle: true,
    write: false,
    metafile: true,
    format: "esm",
    // "neutral": no Node built-ins; packages are looked up as a browser would.
    platform: "neutral",
    mainFields: ["browser", "module", "main"],
    conditions: ["browser", "import"],
    alias: ALIASES,
    external: [NATIVE_MODULE],
    target: "es2023",
    // Names stay, so that a stack trace in a stubdom's log can be read. Lines go, see SCRIPT.
    minifySyntax: true,
    treeShaking: true,
    legalComments: "none",
    define: { "process.env.NODE_ENV": '"production"', STUBDOM_VERSION: JSON.stringify(version()) },
    plugins: [fromNpm],
    logLevel: "silent",
  });
  const outputs = Object.entries(result.metafile.outputs);
  const outside = outputs
    .flatMap(([, output]) => output.imports.filter((i) => i.external === true).map((i) => i.path))
    .filter((path) => path !== NATIVE_MODULE);
  const node = Object.keys(result.metafile.inputs).filter((path) => builtinModules.includes(path));
  if (outside.length + node.length > 0) {
    throw new Error(
      `the agent's bundle imports what QuickJS does not have: ${[...outside, ...node].join(", ")}`,
    );
  }
  const packages = outputs.filter(([, { entryPoint }]) => entryPoint?.includes("node_modules/"));
  if (packages.length > 0)
    throw new Error(
      `import() of the package ${packages[0]?.[1].entryPoint}: without names where it is no ESM; import() a module of ours that imports it`,
    );
  const lazy = outputs
    .filter(([, output]) => output.entryPoint !== undefined)
    .map(([path]) => basename(path))
    .filter((name) => name !== MAIN)
    .sort();
  const modules = Object.fromEntries(
    result.outputFiles.map(({ path, text }) => [
      basename(path),
      withoutImportCalls(basename(path), text, lazy),
    ]),
  );
  return { modules, lazy, metafile: `${JSON.stringify(result.metafile, null, 1)}\n` };
}

/** `import("./NAME")` as a call of main.c's: QuickJS wants to know from which file, and bytecode without lines does not. */
function withoutImportCalls(name: string, text: string, lazy: readonly string[]): string {
  return text.replaceAll(/\bimport\("\.\/([^"]+)"\)/g, (call, target: string) => {
    if (!lazy.includes(target)) throw new Error(`${name}: ${call} is no module of the program's`);
    return `${LOAD}("${target}")`;
  });
}

/** The function by which a module is loaded: main.c has the other end. */
const LOAD = "loadModule";

const MAIN = "main.js";

/** The table of what main.c can load, with qjsc's names for the arrays: the file's, but for its ending. */
function moduleTable(names: readonly string[]): string {
  const symbol = (name: string) => `qjsc_${name.replace(/\.js$/, "").replaceAll(/[^0-9A-Za-z]/g, "_")}`;
  const declarations = names.map(
    (name) => `extern const uint8_t ${symbol(name)}[];\nextern const uint32_t ${symbol(name)}_size;`,
  );
  const entries = names.map((name) => `    {"${name}", ${symbol(name)}, &${symbol(name)}_size},`);
  return [
    '#include "native.h"',
    ...declarations,
    "const struct bundled_module bundled_modules[] = {",
    ...entries,
    "    {NULL, NULL, NULL},\n};\n",
  ].join("\n");
}

/**
 * Without lines (-s) the bytecode is a third smaller, and a sixth of what the boot executes was reading and
 * unpacking them.
 *
 * QuickJS and libxenvchan are linked whole from Debian's archives; sections nobody refers to are dropped.
 * /recipe holds the modules, a list of those that are loaded lazily, and the C files; /build takes the results.
 */
const SCRIPT = `
cd /recipe
qjsc -s -c -m -M ${NATIVE_MODULE} -N stubdom_bundle $(sed 's/^/-D /' lazy) -o /build/bundle.c ${MAIN}
cd /build
# The array is compiled without the warnings that are for people's code.
gcc -Os -c -o bundle.o bundle.c
for file in /recipe/*.c; do
  gcc -std=gnu17 -Wall -Wextra -Werror -O2 -ffunction-sections -fdata-sections -fstack-protector-strong \\
    -D_FORTIFY_SOURCE=2 -D_GNU_SOURCE -fPIE -c -o "$(basename "$file" .c).o" "$file"
done
gcc -static-pie -s -Wl,--gc-sections -Wl,-O1 -Wl,-z,relro,-z,now,-z,pack-relative-relocs -Wl,--build-id=none -o stubdom *.o \\
  /usr/lib/x86_64-linux-gnu/quickjs/libquickjs.a \\
  $(pkg-config --static --libs xenvchan xenstore xengnttab xenevtchn) -lm -lpthread
`;

export interface Agent {
  readonly program: string;
  readonly metafile: string;
}

/** Makes the agent from `entry`; gives the paths of the program and of esbuild's metafile. */
export async function buildAgent(root: BuildRoot, entry = join(PROJECT, "agent/main.ts")): Promise<Agent> {
  const { modules, lazy, metafile } = await bundle(entry);
  const sources = readdirSync(NATIVE)
    .filter((name) => /\.[ch]$/.test(name))
    .sort();
  const loadable = Object.keys(modules).filter((name) => name !== MAIN);
  const recipe: Record<string, string> = {
    ...modules,
    lazy: lazy.map((name) => `${name}\n`).join(""),
    "modules.c": moduleTable(loadable.sort()),
  };
  for (const name of sources) recipe[name] = readFileSync(join(NATIVE, name), "utf8");
  const key = digest({ script: SCRIPT, versions: root.versions, metafile, ...recipe });
  const entryDir = await cached("agent", key, async (dir, log) => {
    await progress.step("agent", async (step) => {
      const input = join(dir, "recipe");
      const output = join(dir, "build");
      mkdirSync(input);
      mkdirSync(output);
      for (const [name, content] of Object.entries(recipe)) writeFileSync(join(input, name), content);
      await runInRoot(root.path, SCRIPT, {
        log,
        step,
        binds: { [input]: "/recipe", [output]: "/build" },
      });
      copyFileSync(join(output, "stubdom"), join(dir, "stubdom"));
      writeFileSync(join(dir, "stubdom.meta.json"), metafile);
      await removeTrees(input, output);
    });
  });
  return { program: join(entryDir, "stubdom"), metafile: join(entryDir, "stubdom.meta.json") };
}
