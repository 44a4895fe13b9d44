import { printable } from "../../log/format.ts";
import { ask } from "../ask.ts";
import type { Command } from "../command.ts";

export const argv: Command = {
  usage: "argv",
  summary: "QEMU's arguments: those that libxl wrote, and those that QEMU was started with",
  run: (platform) => ask(platform, { ask: "argv" }),
  render(result) {
    const { libxl, qemu } = result as { libxl: string[]; qemu: string[] };
    return ["# from libxl (dm-argv)", ...libxl, "", "# as QEMU was started", ...qemu]
      .map(printable)
      .join("\n");
  },
};
