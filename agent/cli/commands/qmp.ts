import { printableJson } from "../../log/format.ts";
import type { JsonObject } from "../../qmp/json.ts";
import { AskError, ask } from "../ask.ts";
import type { Command } from "../command.ts";

export const qmp: Command = {
  usage: "qmp <command> [arguments]",
  summary: "Run one QMP command in QEMU; arguments are a JSON object",
  options: (yargs) =>
    yargs
      .positional("command", { type: "string", describe: "QMP command, e.g. query-status" })
      .positional("arguments", { type: "string", describe: 'JSON object, e.g. \'{"path":"/machine"}\'' })
      .example("stubdom qmp query-status", "Is the guest's device model running?")
      .example(`stubdom qmp qom-list '{"path":"/machine"}'`, "What the machine is made of"),
  run(platform, args) {
    const question = { ask: "qmp", command: String(args.command) } as const;
    if (args.arguments === undefined) return ask(platform, question);
    let parsed: unknown;
    try {
      parsed = JSON.parse(String(args.arguments));
    } catch {
      throw new AskError(`arguments ${String(args.arguments)}: not JSON; give an object like '{"path":"/"}'`);
    }
    if (typeof parsed !== "object" || parsed === null || Array.isArray(parsed)) {
      throw new AskError(`arguments ${String(args.arguments)}: not a JSON object`);
    }
    return ask(platform, { ...question, arguments: parsed as JsonObject });
  },
  render: (result) => printableJson(result, 2),
};
