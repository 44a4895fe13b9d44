import type { Argv } from "yargs";
import Yargs from "yargs/browser";
import { printable, printableJson } from "../log/format.ts";
import type { Platform } from "../platform/port.ts";
import { version } from "../version.ts";
import type { Command, CommandGroup } from "./command.ts";
import { argv } from "./commands/argv.ts";
import { devices } from "./commands/devices.ts";
import { dom0 } from "./commands/dom0.ts";
import { log } from "./commands/log.ts";
import { measure } from "./commands/measure.ts";
import { qmp } from "./commands/qmp.ts";
import { status } from "./commands/status.ts";
import { xenstore } from "./commands/xenstore.ts";

const commands: readonly (Command | CommandGroup)[] = [
  status,
  devices,
  argv,
  qmp,
  xenstore,
  log,
  measure,
  dom0,
];

/** Runs the command line; resolves to the process's exit status: 0, 1 for a failure, 2 for bad usage. */
export async function runCli(platform: Platform, args: readonly string[]): Promise<number> {
  let exitStatus = 0;
  const yargs = Yargs()
    .scriptName("stubdom")
    .usage(
      "$0 <command> [options]\n\nLooks into the Xen stub domain that it runs in: the small guest that holds the QEMU of an HVM guest. In dom0, serves state disks to stub domains.",
    )
    .option("json", { type: "boolean", default: false, global: true, describe: "Print JSON instead of text" })
    .version(version)
    .help()
    .alias("help", "h")
    .wrap(100)
    .strict()
    .demandCommand(1, "Name a command; `stubdom --help` lists them.")
    .exitProcess(false);
  const ended = (status: number) => {
    exitStatus = status;
  };
  for (const command of commands) offer(yargs, platform, command, ended);
  // yargs reports both its own complaints and a command's failure here, and rejects with it once more.
  yargs.fail((message, error) => {
    // What was told already comes by once more as the command's own failure.
    if (exitStatus !== 0) return;
    console.error(`stubdom: ${message ?? printable(error.message)}`);
    // With words of its own yargs complains of the usage; without, a command has failed.
    exitStatus = message ? 2 : 1;
  });
  try {
    await yargs.parseAsync([...args]);
  } catch (error) {
    if (exitStatus === 0) throw error;
  }
  return exitStatus;
}

/** @param ended gets the exit status of the command that was run */
function offer(
  yargs: Argv,
  platform: Platform,
  command: Command | CommandGroup,
  ended: (status: number) => void,
): void {
  if ("commands" in command) {
    yargs.command(command.name, command.summary, (own) => {
      for (const member of command.commands) offer(own, platform, member, ended);
      return own.demandCommand(1, `Name a command; \`stubdom ${command.name} --help\` lists them.`);
    });
    return;
  }
  yargs.command(
    command.usage,
    command.summary,
    (own) => command.options?.(own) ?? own,
    async (parsed) => {
      const result = await command.run(platform, parsed);
      if (result !== undefined) console.log(parsed.json ? printableJson(result) : command.render(result));
      ended(command.exitStatus?.(result) ?? 0);
    },
  );
}
