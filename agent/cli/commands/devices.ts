import { ask } from "../ask.ts";
import { type Command, table } from "../command.ts";

interface Device {
  readonly kind: string;
  readonly name: string;
  readonly detail: string;
}

export const devices: Command = {
  usage: "devices",
  summary: "The PV devices that this stub domain was given and what became of each",
  run: (platform) => ask(platform, { ask: "devices" }),
  render: (result) => table((result as Device[]).map(({ kind, name, detail }) => [kind, name, detail])),
};
