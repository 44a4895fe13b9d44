import { type DetachedDevice, detachPciDevice } from "../../dom0/pci-detach.ts";
import type { Command } from "../command.ts";

export const pciDetach: Command = {
  usage: "pci-detach <guest> <device>",
  summary: "xl pci-detach for a guest with a stub domain, whose devices xl by itself does not find",
  options: (yargs) =>
    yargs
      .positional("guest", { type: "string", describe: "Name or number of the guest, as xl shows it" })
      .positional("device", { type: "string", describe: "Its address on the host, like 0000:03:00.0" }),
  run: (platform, args) => detachPciDevice(platform, String(args.guest), String(args.device)),
  render(result) {
    const { domid, address } = result as DetachedDevice;
    return `domain ${domid}: ${address} is detached`;
  },
};
