import { readStateFile, type StateFileReport } from "../../dom0/state-file.ts";
import { type Command, fields } from "../command.ts";

export const inspect: Command = {
  usage: "inspect <file>",
  summary: "What is in a state file, and is it whole",
  options: (yargs) =>
    yargs.positional("file", {
      type: "string",
      describe: "State disk, framed stream or bare QEMU state; a file or a block device",
    }),
  run: (platform, args) => readStateFile(platform, String(args.file)),
  render: fields,
  // For scripts: no guest should be started from it.
  exitStatus: (result) => ((result as StateFileReport).whole === false ? 1 : 0),
};
