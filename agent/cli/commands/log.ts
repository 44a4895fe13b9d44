import { printable } from "../../log/format.ts";
import { ask } from "../ask.ts";
import type { Command } from "../command.ts";

export const log: Command = {
  usage: "log",
  summary: "The newest lines of the agent's log, QEMU's own among them",
  run: (platform) => ask(platform, { ask: "log" }),
  render: (result) => (result as string[]).map(printable).join("\n"),
};
