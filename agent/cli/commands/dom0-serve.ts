import { Helper } from "../../dom0/helper.ts";
import { defaultSettings, type HelperSettings } from "../../dom0/settings.ts";
import { connectXenstore } from "../../dom0/xenstore.ts";
import { createLog } from "../../log/log.ts";
import type { Arguments, Command } from "../command.ts";
import { place, text } from "../dom0-options.ts";

export const serve: Command = {
  usage: "serve",
  summary:
    "Attach state disks to stub domains that ask for one, serve CD drives that were empty, have dom0 show screens; runs until SIGTERM",
  options: (yargs) =>
    place
      .xenstored(place.xenDirectory(place.directory(yargs)))
      .option("device", {
        type: "string",
        array: true,
        default: [],
        describe:
          "A block device (an LVM volume, say), better no larger than --limit, to be used in place of files; may be given again",
      })
      .option("limit", {
        type: "string",
        default: sizeText(defaultSettings.limit),
        describe: "Largest state disk of one stub domain: 64M, 1G; K, M and G are powers of 1024",
      })
      .option("keep-free", {
        type: "string",
        default: sizeText(defaultSettings.keepFree),
        describe: "What must stay free on the file systems that state is written to",
      })
      .option("accept-unchecked", {
        type: "boolean",
        default: false,
        describe: "Start guests also from a state without checksums, or with another guest's uuid",
      })
      .option("debug", { type: "boolean", default: false, describe: "Log more" })
      .example("stubdom dom0 serve --limit 64M", "No stub domain gets more than 64 MiB of disk"),
  async run(platform, args) {
    const log = createLog(platform.clock, { write: (line) => console.log(line) });
    log.configure({ level: args.debug ? "debug" : "info", format: args.json ? "json" : "human" });
    const xenstore = await connectXenstore(platform, text(args.xenstored));
    // A busy dom0 is no reason to end, and with it every transfer that is under way.
    xenstore.deadline = storeDeadline;
    await new Promise<void>((resolve, reject) => {
      let ending: Promise<void> | undefined;
      const helper = new Helper(platform, xenstore, log, settingsOf(args), reject);
      platform.processes.onSignals(["SIGTERM", "SIGINT", "SIGHUP"], (signal) => {
        log.info({}, `${signal}: ending`);
        ending ??= helper.stop();
        ending.then(resolve, reject);
      });
      helper.start().catch(reject);
    });
    xenstore.close();
  },
  render: () => "",
};

/** For one reply of xenstored, in milliseconds. */
const storeDeadline = 60_000;

function settingsOf(args: Arguments): HelperSettings {
  return {
    ...defaultSettings,
    directory: String(args.directory),
    xenDirectory: String(args["xen-directory"]),
    devices: (args.device as readonly unknown[]).map(String),
    limit: sizeOf("limit", args.limit),
    keepFree: sizeOf("keep-free", args["keep-free"]),
    acceptUnchecked: args["accept-unchecked"] === true,
  };
}

const units = { "": 1, K: 2 ** 10, M: 2 ** 20, G: 2 ** 30 } as const;

/** `64M` and the like, in bytes. */
function sizeOf(option: string, value: unknown): number {
  const found = /^(\d{1,9})([KMG]?)$/.exec(String(value));
  if (found === null)
    throw new RangeError(`--${option} ${String(value)}: wanted is a number with K, M or G, like 64M`);
  return Number(found[1]) * units[found[2] as keyof typeof units];
}

function sizeText(bytes: number): string {
  return `${bytes / units.M}M`;
}
