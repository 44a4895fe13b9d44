import type { DeviceStatus } from "../../init/status.ts";
import { ask } from "../ask.ts";
import { type Command, table } from "../command.ts";

export const devices: Command = {
  usage: "devices",
  summary: "The PV devices that this stub domain was given and what became of each",
  run: (platform) => ask(platform, { ask: "devices" }),
  render: (result) => table((result as DeviceStatus[]).map(({ kind, name, detail }) => [kind, name, detail])),
};
