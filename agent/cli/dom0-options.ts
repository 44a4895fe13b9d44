import type { Argv } from "yargs";
import { defaultSettings } from "../dom0/settings.ts";
import { xenstoredSocket } from "../dom0/xenstore.ts";

/** Where dom0 keeps what our commands work with: options that several of them have. */
export const place = {
  directory: (yargs: Argv) =>
    yargs.option("directory", {
      type: "string",
      default: defaultSettings.directory,
      describe: "Where the helper keeps state disks, as sparse files without a name, and its lock",
    }),
  xenDirectory: (yargs: Argv) =>
    yargs.option("xen-directory", {
      type: "string",
      default: defaultSettings.xenDirectory,
      describe:
        "Where Xen's tools keep qemu-save.* and qemu-resume.*: the XEN_LIB_DIR that they were built with",
    }),
  xenstored: (yargs: Argv) =>
    yargs.option("xenstored", {
      type: "string",
      describe: `Socket of xenstored, in place of ${xenstoredSocket} or, without one, the kernel's device`,
    }),
} as const;

/** An option of type string; `undefined` when it was not given and has no default. */
export function text(value: unknown): string | undefined {
  return value === undefined ? undefined : String(value);
}
