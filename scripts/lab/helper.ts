/** dom0's helper for state disks, `stubdom dom0 serve`, on a host of the lab. */

import { join } from "node:path";
import { PROJECT } from "../../bundler/paths.ts";
import type { XenHost } from "./xen-host.ts";

/** Where {@link installHelper} puts the program: not where somebody's own may be, on a host that is not the lab's. */
export const program = "/root/stubdom-lab/stubdom";
const log = "/var/log/xen/stubdom-helper.log";

/** Copies the program into dom0; `stubdom dom0 serve` is started by {@link startHelper}. */
export async function installHelper(host: XenHost): Promise<void> {
  await host.push(join(PROJECT, "dist/stubdom"), program);
  await host.run(`chmod 755 ${program}`);
}

/** Whether one serves already, of whatever place: somebody's own. {@link installHelper} comes first. */
export async function helperRuns(host: XenHost): Promise<boolean> {
  const { stdout } = await host.run(`${program} dom0 status 2> /dev/null`, { accept: "any" });
  return stdout.includes("helper runs");
}

/** Starts the helper; resolves when it serves. */
export async function startHelper(host: XenHost, options = ""): Promise<void> {
  await host.run(`setsid ${program} dom0 serve --debug ${options} >>${log} 2>&1 </dev/null &`);
  await host.run(
    `for i in $(seq 100); do ${program} dom0 status | grep -q 'helper runs' && exit 0; sleep 0.2; done; exit 1`,
  );
}

/** Ends the helper with a signal; resolves when it has gone. */
export async function stopHelper(host: XenHost, signal: "TERM" | "KILL" = "TERM"): Promise<void> {
  const script = `pid=$(pgrep -xo stubdom) || exit 0; kill -${signal} $pid; while [ -d /proc/$pid ]; do sleep 0.1; done`;
  await host.run(script, { timeout: 60 });
}

export async function helperLog(host: XenHost): Promise<string> {
  return (await host.run(["cat", log], { accept: "any" })).stdout;
}
