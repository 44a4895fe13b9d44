import { decodeText } from "../bytes/text.ts";
import { resolveConfig } from "../config/config.ts";
import type { Config } from "../config/fields.ts";
import type { Logger } from "../log/logger.ts";
import { type FileSystem, SystemError } from "../platform/port.ts";
import { argumentsInOrder, type DmArguments, readDmArguments } from "../qemu/dm-argv.ts";
import type { Argument } from "./libxl-arguments.ts";

const iniFile = "/etc/stubdom.ini";
/** /proc/cmdline and the ini file; both are far shorter. */
const longestFile = 64 * 1024;

/** Reads and resolves the configuration; what was not taken as written is logged as a warning each. */
export async function loadConfig(files: FileSystem, log: Logger): Promise<Config> {
  const [commandLine, ini] = [readText(files, "/proc/cmdline"), readText(files, iniFile)];
  const { config, warnings } = await resolveConfig(commandLine, ini);
  for (const { source, key, value, message } of warnings) log.warn({ source, key, value }, message);
  if (config.diskAio === "native" && config.diskCache !== "none")
    log.warn(
      {},
      `disk_aio=native does nothing beside disk_cache=${config.diskCache}, and threads serve the disks; write disk_cache=none as well, or leave it out`,
    );
  else if (config.diskAio !== "threads")
    log.warn(
      {},
      `disk_aio=${config.diskAio} takes a flush that dom0 cannot carry out for done; write disk_aio=threads, with which the guest is told`,
    );
  return config;
}

function readText(files: FileSystem, path: string): string {
  try {
    return decodeText(files.readFile(path, longestFile));
  } catch (error) {
    if (error instanceof SystemError && error.code === "ENOENT") return "";
    throw error;
  }
}

/** What libxl wants of QEMU. @throws ArgumentError */
export function dmArgumentsFrom(given: readonly Argument[], target: number): DmArguments {
  return readDmArguments(argumentsInOrder(given), target);
}
