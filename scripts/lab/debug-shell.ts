/** The debug shell of a stub domain, from dom0. */

import type { Guest } from "./guest.ts";
import { PATIENCE } from "./patience.ts";

/** What a guest needs so that {@link inStubdom} works. */
export const withShell = { cmdline: "quiet stubdom.shell=1" };

/**
 * Runs a script in the debug shell of a guest's stub domain, over Xen's own vchan-socket-proxy, and returns
 * what it printed. The session stays open until the script has ended.
 */
export async function inStubdom(guest: Guest, script: string, seconds = 120): Promise<string> {
  const [stubdom, target] = [await guest.stubdomId(), await guest.domid()];
  const path = `/local/domain/${stubdom}/device-model/${target}/agent/shell`;
  const proxy = `exec "$(ls -d /usr/lib/xen-[0-9]*/bin | tail -n 1)"/vchan-socket-proxy --mode=client ${stubdom} ${path} -`;
  const session = guest.host.spawn(["/bin/sh", "-c", proxy]);
  // Built in two pieces, so that the words of the command itself are not taken for its answer.
  session.write(Buffer.from(`{ echo "@@" BEGIN; ${script}\n}; echo "@@" END $?; exec sleep 60\n`));
  return new Promise((resolve, reject) => {
    let text = "";
    const timer = setTimeout(
      () => {
        session.kill(9);
        reject(
          new Error(
            `the debug shell of ${guest.name} did not finish in ${seconds * PATIENCE} s; it said:\n${text}`,
          ),
        );
      },
      seconds * PATIENCE * 1000,
    );
    session.exited.then((status) => {
      clearTimeout(timer);
      reject(new Error(`the debug shell of ${guest.name} ended with ${status}; it said:\n${text}`));
    }, reject);
    session.on("stderr", (chunk) => {
      text += new TextDecoder().decode(chunk);
    });
    session.on("stdout", (chunk) => {
      text += new TextDecoder().decode(chunk);
      const end = text.indexOf("@@ END ");
      if (end < 0) return;
      clearTimeout(timer);
      session.kill(9);
      // Before it stand the shell's greeting and its prompts.
      resolve(text.slice(0, end).replace(/^.*@@ BEGIN\n/s, ""));
    });
  });
}
