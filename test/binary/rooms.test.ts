import { readFileSync } from "node:fs";
import { builtinModules } from "node:module";
import { describe, expect, it } from "vitest";

interface Metafile {
  readonly inputs: Record<
    string,
    { readonly imports: readonly { readonly path: string; readonly external?: boolean }[] }
  >;
}

const metafile = JSON.parse(readFileSync("dist/stubdom.meta.json", "utf8")) as Metafile;

/** What each room may import, besides itself: the table in ARCHITECTURE.md. Packages by name. */
const rooms: Record<string, readonly string[]> = {
  bytes: [],
  platform: ["bytes"],
  log: ["platform", "bytes", "pino"],
  xenstore: ["bytes", "platform", "log"],
  frontends: ["xenstore", "platform", "bytes", "log"],
  config: ["ini", "bytes"],
  qemu: ["config", "platform", "bytes", "log", "qmp", "frontends"],
  qmp: ["bytes", "platform", "log"],
  hotplug: ["platform", "log", "xenstore", "frontends", "qmp"],
  savestate: ["bytes", "platform", "log", "qmp", "xenstore", "frontends"],
  passthrough: ["platform", "log", "qmp", "xenstore", "frontends"],
  screen: ["bytes", "platform", "log", "qmp", "frontends", "xenstore", "config"],
  dom0: ["bytes", "platform", "log", "xenstore", "frontends", "savestate", "qmp", "screen"],
  init: [
    ...["bytes", "platform", "log", "xenstore", "frontends", "config", "qemu", "qmp"],
    ...["savestate", "screen", "hotplug", "passthrough"],
  ],
  cli: ["bytes", "platform", "log", "xenstore", "init", "savestate", "dom0", "qmp", "yargs"],
};

function roomOf(path: string): string {
  const own = /^agent\/([^/]+)\//.exec(path)?.[1];
  if (own !== undefined) return own;
  const npm = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
  return npm ?? path;
}

const edges = Object.entries(metafile.inputs)
  .filter(([file]) => /^agent\/[^/]+\//.test(file))
  .flatMap(([file, { imports }]) => imports.map(({ path }) => ({ file, path })));

describe("the rooms of agent/", () => {
  it("import only what the table allows", () => {
    const wrong = edges.filter(({ file, path }) => {
      const from = roomOf(file);
      const to = path === "stubdom-native" ? path : roomOf(path);
      if (from === to || path === "agent/version.ts") return false;
      if (to === "stubdom-native") return !file.startsWith("agent/platform/quickjs/");
      return !(rooms[from] ?? []).includes(to);
    });
    expect(wrong).toEqual([]);
  });

  it("leave platform/quickjs to main.ts", () => {
    const wrong = edges.filter(
      ({ file, path }) =>
        path.startsWith("agent/platform/quickjs/") && !file.startsWith("agent/platform/quickjs/"),
    );
    expect(wrong).toEqual([]);
  });

  it("hold no Node built-in", () => {
    const builtins = new Set([...builtinModules, ...builtinModules.map((name) => `node:${name}`)]);
    const all = Object.values(metafile.inputs).flatMap(({ imports }) => imports.map(({ path }) => path));
    expect(all.filter((path) => builtins.has(path))).toEqual([]);
  });
});
