import { encodeText } from "../../bytes/text.ts";
import { printable, printableJson } from "../../log/format.ts";
import type { Platform } from "../../platform/port.ts";
import { XenstoreClient } from "../../xenstore/client.ts";
import { XenstoreError } from "../../xenstore/errors.ts";
import { AskError } from "../ask.ts";
import type { Arguments, Command } from "../command.ts";

interface Node {
  readonly path: string;
  readonly value: string;
  /** Why there is no value to tell, `EACCES` for what is not ours to read. */
  readonly error?: string;
}

/** How deep `ls` goes: deeper than anything that Xen writes, and an end to what somebody else wrote. */
const deepest = 16;

export const xenstore: Command = {
  usage: "xenstore <action> <path> [value]",
  summary: "List, read, write or watch xenstore; a path without a leading / is this domain's own",
  options: (yargs) =>
    yargs
      .positional("action", { choices: ["ls", "read", "write", "watch"] as const, describe: "What to do" })
      .positional("path", { type: "string", describe: "Node, e.g. device/vbd or /local/domain/0/name" })
      .positional("value", { type: "string", describe: "For write: the new value" })
      .example("stubdom xenstore ls device", "This stub domain's devices")
      .example("stubdom xenstore watch console/state", "Print each change until interrupted"),
  async run(platform, args) {
    const client = XenstoreClient.connect(platform);
    try {
      return await act(client, platform, args);
    } finally {
      client.close();
    }
  },
  render(result) {
    if (typeof result === "string") return printable(result);
    return (result as Node[])
      .map(
        ({ path, value, error }) =>
          `${printable(path)} ${error === undefined ? `= "${printable(value)}"` : error}`,
      )
      .join("\n");
  },
};

async function act(client: XenstoreClient, platform: Platform, args: Arguments): Promise<unknown> {
  const path = String(args.path);
  switch (args.action) {
    case "ls":
      return list(client, path, deepest);
    case "read":
      return client.readText(path);
    case "write":
      if (args.value === undefined) throw new AskError(`xenstore write ${path}: give the value too`);
      await client.write(path, String(args.value));
      return undefined;
    default:
      return follow(client, platform, path, args.json === true);
  }
}

async function list(client: XenstoreClient, path: string, levels: number): Promise<Node[]> {
  const names = levels > 0 ? await client.directory(path) : [];
  const nodes = await Promise.all(
    names.map(async (name): Promise<Node[]> => {
      const child = path === "/" ? `/${name}` : `${path}/${name}`;
      try {
        const [value, below] = await Promise.all([client.readText(child), list(client, child, levels - 1)]);
        return [{ path: child, value }, ...below];
      } catch (error) {
        // Nodes come and go, and not all are everybody's: one of them does not spoil the others.
        if (!(error instanceof XenstoreError)) throw error;
        return error.code === "ENOENT" ? [] : [{ path: child, value: "", error: error.code }];
      }
    }),
  );
  return nodes.flat();
}

/** Prints each event until the connection ends; only a signal ends it otherwise. */
function follow(client: XenstoreClient, platform: Platform, path: string, json: boolean): Promise<never> {
  return new Promise((_, reject) => {
    const show = async (changed: string) => {
      const value = (await client.tryReadText(changed)) ?? null;
      const line = json
        ? printableJson({ path: changed, value })
        : `${printable(changed)} = ${printableJson(value)}`;
      platform.descriptors.write(1, encodeText(`${line}\n`));
    };
    client.watch(path, (changed) => void show(changed).catch(reject), reject).catch(reject);
  });
}
