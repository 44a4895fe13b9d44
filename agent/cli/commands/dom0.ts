import type { CommandGroup } from "../command.ts";
import { extract } from "./dom0-extract.ts";
import { inspect } from "./dom0-inspect.ts";
import { pciDetach } from "./dom0-pci-detach.ts";
import { save } from "./dom0-save.ts";
import { serve } from "./dom0-serve.ts";
import { dom0Status } from "./dom0-status.ts";

export const dom0: CommandGroup = {
  name: "dom0",
  summary: "In dom0: serve state disks to stub domains, save, inspect and extract state, detach PCI devices",
  commands: [serve, dom0Status, save, inspect, extract, pciDetach],
};
