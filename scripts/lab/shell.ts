/** `scripts/lab/shell`: an emulated Xen host for a person. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { PROJECT } from "../../bundler/paths.ts";
import { progress } from "../../bundler/progress.ts";
import { dom0Release } from "./dom0-image.ts";
import { createGuest, installStubdom, prepareGuest } from "./guest.ts";
import { guestDisk } from "./guest-disk.ts";
import { LabHost } from "./host.ts";
import { dom0Shell } from "./terminal.ts";

const USAGE = `usage: scripts/lab/shell [options]

Boots an unmodified Xen with a Debian dom0 under emulation and gives a root prompt there. With dist/ built, the
stub domain's image is in /root, and /root/guest/guest.cfg is a guest for \`xl create\`; \`xl console guest\`
shows its serial port (Ctrl-] leaves it). Nothing that is changed there is kept.

  --dom0 trixie|bookworm   Debian 13 (Xen 4.20, QEMU 10; the default) or 12 (Xen 4.17, QEMU 7.2)
  --memory MIB             of the whole machine (default 6144)
  --create                 create the guest first
  --cold                   boot, instead of going on from a saved state
  --help`;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      dom0: { type: "string", default: "trixie" },
      memory: { type: "string", default: "6144" },
      create: { type: "boolean", default: false },
      cold: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const host = await progress.step("emulated Xen host", () =>
    LabHost.start({ dom0: dom0Release(values.dom0), memory: Number(values.memory), saved: !values.cold }),
  );
  try {
    if (existsSync(join(PROJECT, "dist/stubdom-linux-ramdisk"))) {
      await installStubdom(host);
      const options = { name: "guest", images: { hda: await guestDisk() } };
      if (values.create) await progress.step("xl create guest", () => createGuest(host, options));
      else await host.push(Buffer.from(await prepareGuest(host, options)), "/root/guest/guest.cfg");
    }
    console.log(`Console of Xen and dom0: ${host.log}`);
    return await dom0Shell(host);
  } finally {
    await host.stop();
  }
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));
process.exitCode = await main();
