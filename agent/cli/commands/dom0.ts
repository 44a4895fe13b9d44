import type { CommandGroup } from "../command.ts";
import { extract } from "./dom0-extract.ts";
import { inspect } from "./dom0-inspect.ts";
import { save } from "./dom0-save.ts";
import { serve } from "./dom0-serve.ts";
import { dom0Status } from "./dom0-status.ts";

export const dom0: CommandGroup = {
  name: "dom0",
  summary: "State disks, seen from dom0: serve them to stub domains, save, inspect and extract state",
  commands: [serve, dom0Status, save, inspect, extract],
};
