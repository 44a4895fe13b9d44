import { decodeText } from "../bytes/text.ts";
import { resolveConfig } from "../config/config.ts";
import type { Config } from "../config/fields.ts";
import type { Logger } from "../log/logger.ts";
import { type FileSystem, SystemError } from "../platform/port.ts";
import { argumentsInOrder, type DmArguments, readDmArguments } from "../qemu/dm-argv.ts";
import type { Operations } from "../xenstore/operations.ts";
import { BootError } from "./errors.ts";

const iniFile = "/etc/stubdom.ini";
/** /proc/cmdline and the ini file; both are far shorter. */
const longestFile = 64 * 1024;

/** Reads and resolves the configuration; what was not taken as written is logged as a warning each. */
export async function loadConfig(files: FileSystem, log: Logger): Promise<Config> {
  const [commandLine, ini] = [readText(files, "/proc/cmdline"), readText(files, iniFile)];
  const { config, warnings } = await resolveConfig(commandLine, ini);
  for (const { source, key, value, message } of warnings) log.warn({ source, key, value }, message);
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

/** Reads the arguments that libxl wrote for QEMU, in order. */
export async function readArguments(store: Operations, target: number): Promise<DmArguments> {
  const node = `/local/domain/${target}/vm`;
  const vm = await store.tryReadText(node);
  if (vm === undefined || !/^\/vm\/[0-9a-fA-F-]+$/.test(vm)) {
    throw new BootError(
      `xenstore ${node} ${vm === undefined ? "does not exist" : `is ${JSON.stringify(vm.slice(0, 80))}`}, so there are no arguments for QEMU`,
      "create the guest again; libxl writes /vm/<uuid> for each guest",
    );
  }
  const path = `${vm}/image/dm-argv`;
  const names = await store.tryDirectory(path);
  const values = await store.readAll(names.map((name) => `${path}/${name}`));
  const entries = values.map((value, i) => ({ name: names[i] ?? "", value }));
  return readDmArguments(argumentsInOrder(entries), target);
}
