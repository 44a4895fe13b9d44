import { extractState } from "../../dom0/extract.ts";
import type { Command } from "../command.ts";

export const extract: Command = {
  usage: "extract <file> <to>",
  summary: "Take QEMU's own state out of a state file, if it is whole",
  options: (yargs) =>
    yargs.positional("file", { type: "string", describe: "State disk or framed stream" }).positional("to", {
      type: "string",
      describe: "File to be made; it has this name only when all is in it",
    }),
  run: (platform, args) => extractState(platform, String(args.file), String(args.to)),
  render: (result) => `${String((result as { bytes: number }).bytes)} bytes`,
};
