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
export function loadConfig(files: FileSystem, log: Logger): Config {
  const { config, warnings } = resolveConfig(readText(files, "/proc/cmdline"), readText(files, iniFile));
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

/** Who this stub domain is and whom it serves. */
export interface Identity {
  /** S, this stub domain's own domid. */
  readonly domid: number;
  /** T, the domid of the HVM guest. */
  readonly target: number;
}

/**
 * Reads both domids; libxl has written them before it unpaused us.
 *
 * @throws BootError when this is no stub domain
 */
export async function readIdentity(store: Operations): Promise<Identity> {
  const [domid, target] = await Promise.all([store.tryReadText("domid"), store.tryReadText("target")]);
  return { domid: domidOf("domid", domid), target: domidOf("target", target) };
}

function domidOf(node: string, value: string | undefined): number {
  // 0x7ff0, DOMID_FIRST_RESERVED of xen/include/public/xen.h, is no domain any more.
  if (value !== undefined && /^\d{1,5}$/.test(value) && Number(value) < 0x7ff0) return Number(value);
  throw new BootError(
    `xenstore ${node} ${value === undefined ? "does not exist" : `is ${JSON.stringify(value.slice(0, 40))}, not a domid`}`,
    "start this image as a guest's device model: device_model_stubdomain_override=1 and stubdomain_kernel= in its configuration",
  );
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
  const values = await Promise.all(names.map((name) => store.read(`${path}/${name}`)));
  const entries = values.map((value, i) => ({ name: names[i] ?? "", value }));
  return readDmArguments(argumentsInOrder(entries), target);
}
