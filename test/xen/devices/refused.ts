/** Guests that cannot be had. */

import { prepareGuest } from "../../../scripts/lab/guest.ts";
import type { XenHost } from "../../../scripts/lab/xen-host.ts";
import type { XlGuest } from "../../../scripts/lab/xl-config.ts";

/**
 * Tries to create a guest with these further lines, which must fail, and gives the stub domain's log. It says what is
 * wrong after some 3 s; `xl create` fails when libxl's 30 s for a stub domain are over, which nothing cuts short: it
 * waits for the word `running`, and looks at neither the stub domain nor another word.
 */
export async function refused(
  host: XenHost,
  label: string,
  extra: XlGuest["extra"] = {},
  options: Partial<Omit<XlGuest, "extra">> = {},
): Promise<string> {
  const name = `refused-${label}`;
  const config = await prepareGuest(host, { name, images: { hda: 1 }, extra, ...options });
  await host.push(Buffer.from(config), `/root/${name}/guest.cfg`);
  const { status } = await host.run(["xl", "create", `/root/${name}/guest.cfg`], {
    timeout: 180,
    accept: "any",
  });
  const log = (await host.run(`cat /var/log/xen/qemu-dm-${name}.log`)).stdout;
  await host.run(["xl", "destroy", name], { accept: "any" });
  if (status === 0) throw new Error(`${name}: xl created it; the stub domain's log:\n${log}`);
  return log;
}
