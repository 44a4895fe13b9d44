import { type SavedGuest, saveGuest } from "../../dom0/save-guest.ts";
import type { Command } from "../command.ts";
import { place } from "../dom0-options.ts";

export const save: Command = {
  usage: "save <guest> <file>",
  summary: "Save the state of a guest's device model alone; the guest is paused meanwhile, then goes on",
  options: (yargs) =>
    place
      .xenDirectory(yargs)
      .positional("guest", { type: "string", describe: "Name or number of the guest, as xl shows it" })
      .positional("file", { type: "string", describe: "State file to be made" })
      .example("stubdom dom0 save web /root/web.state", "Then: stubdom dom0 inspect /root/web.state"),
  run: (platform, args) =>
    saveGuest(platform, String(args.guest), String(args.file), String(args["xen-directory"])),
  render(result) {
    const { domid, file, bytes } = result as SavedGuest;
    return `domain ${domid}: ${bytes} bytes of device state in ${file}`;
  },
};
