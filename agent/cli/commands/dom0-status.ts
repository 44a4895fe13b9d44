import { type Dom0Status, readStatus } from "../../dom0/status.ts";
import { type Command, table } from "../command.ts";
import { place, text } from "../dom0-options.ts";

export const dom0Status: Command = {
  usage: "status",
  summary: "Does the helper run, which stub domains does it serve, what are they doing",
  options: (yargs) => place.xenstored(place.directory(yargs)),
  run: (platform, args) => readStatus(platform, String(args.directory), text(args.xenstored)),
  render(result) {
    const { running, version, domains } = result as Dom0Status;
    const head = running ? `the helper runs, version ${version}` : "the helper does not run";
    const rows = domains.map((d) => [
      `domain ${d.domid}`,
      `serves ${d.target} ${d.guest}`,
      d.request ?? "never asked",
      d.answer ?? "",
    ]);
    return rows.length === 0 ? head : `${head}\n${table(rows)}`;
  },
};
