/** `scripts/demo`: the whole way once, for a person to watch. */

import { spawn } from "node:child_process";
import { statSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { PROJECT } from "../bundler/paths.ts";
import { progress } from "../bundler/progress.ts";
import { type Dom0Release, dom0Release } from "./lab/dom0-image.ts";
import { bootGuest, type Guest, type GuestOptions, installStubdom } from "./lab/guest.ts";
import { guestDisk } from "./lab/guest-disk.ts";
import { LabHost } from "./lab/host.ts";
import { dom0Shell } from "./lab/terminal.ts";

const USAGE = `usage: scripts/demo [options]

Builds the stub domain's image, boots an unmodified Xen with a Debian dom0 under emulation (no virtualisation
hardware is needed), and creates an HVM guest with plain \`xl create\`. Its QEMU runs in our stub domain; the
guest boots a small Linux from its disk. What is slow is kept in ~/.cache/linux-stubdom for the next time.

  --dom0 trixie|bookworm   Debian 13 (Xen 4.20, QEMU 10; the default) or 12 (Xen 4.17, QEMU 7.2)
  --keep                   leave the guest running and give a prompt in dom0
  --help`;

const NAME = "demo";
const BOOT_SECONDS = 600;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      dom0: { type: "string", default: "trixie" },
      keep: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  if (values.help) {
    console.log(USAGE);
    return 0;
  }
  const release = dom0Release(values.dom0);
  title("1. Build the image: kernel, QEMU and agent, from Debian 13's source packages");
  await build();
  for (const file of ["stubdom-linux-kernel", "stubdom-linux-ramdisk"]) {
    const bytes = statSync(join(PROJECT, "dist", file)).size;
    console.log(`   dist/${file.padEnd(24)} ${(bytes / 1e6).toFixed(2)} MB`);
  }
  title(`2. Boot an emulated Xen host (${description(release)})`);
  const disk = await guestDisk({ jobs: ["sha256"], cmdline: "quiet" });
  const host = await progress.step("Xen and dom0", () => LabHost.start({ dom0: release }));
  try {
    const { stdout } = await host.run("xl info | grep -E '^(xen_version|xen_extra|virt_caps|release)'");
    console.log(indent(stdout));
    await installStubdom(host);
    const guest = await show(host, disk);
    if (values.keep) {
      console.log(
        `\nA prompt in dom0; the guest runs on. Leave it with exit. Try: xl list; xl console ${NAME}`,
      );
      await dom0Shell(host);
    }
    await guest.destroy();
    return 0;
  } finally {
    await host.stop();
  }
}

/** Creates the guest, shows its console as it boots, then what happened when. */
async function show(host: LabHost, disk: string): Promise<Guest> {
  title("3. xl create, and the guest's serial console as it boots");
  const began = Date.now();
  const seconds = (): number => (Date.now() - began) / 1000;
  const seen: (readonly [string, number])[] = [];
  const milestones: readonly (readonly [RegExp, string])[] = [
    [/^SYSLINUX/, "firmware done, boot loader runs from the disk"],
    [/^Loading kernel/, "guest's kernel read from the disk"],
    [/^guest: up/, "guest's Linux is up"],
    [/^guest: ready/, "guest has read its disk and is ready"],
  ];
  const wanted: GuestOptions = {
    name: NAME,
    memory: 64,
    images: { hda: disk },
    nics: [{ mac: "00:16:3e:5d:00:01", bridge: "xenbr0", model: "e1000" }],
    // An IDE disk is read word by word by the firmware, each a trap into the stub domain: minutes, here.
    extra: { hdtype: "ahci" },
    onSerial: (line) => {
      progress.note(`   ${seconds().toFixed(1).padStart(6)} s | ${line}`);
      const milestone = milestones.find(([pattern]) => pattern.test(line));
      if (milestone !== undefined) seen.push([milestone[1], seconds()]);
    },
  };
  const guest = await progress.step("xl create, and the guest boots", () =>
    bootGuest(host, wanted, /^guest: ready/, BOOT_SECONDS, () => {
      // Of a first try that came to nothing, if there was one.
      seen.length = 0;
    }),
  );
  seen.unshift(["xl create has returned: QEMU runs in the stub domain", guest.createTime / 1000]);

  title("4. What happened when");
  console.log("   since xl create was called:");
  for (const [what, when] of seen) console.log(`   ${when.toFixed(2).padStart(8)} s  ${what}`);
  const agent = await guest.agent();
  console.log("   in the stub domain, since its kernel booted:");
  const phases = Object.entries(agent)
    .filter(([key]) => key.startsWith("phases/"))
    .map(([key, value]) => [key.replace("phases/", ""), Number(value) / 1000] as const)
    .sort(([, a], [, b]) => a - b);
  for (const [phase, when] of phases) console.log(`   ${when.toFixed(3).padStart(8)} s  ${phase}`);
  console.log("   memory:");
  if (agent.memory !== undefined) console.log(`   ${agent.memory}`);
  console.log(indent((await host.run(["xl", "list"])).stdout));

  title("5. The stub domain's own log, in dom0");
  console.log(indent(await guest.qemuDmLog()));
  const [stub, target] = [await guest.stubdomId(), await guest.domid()];
  title("Where to look next");
  console.log(
    [
      `   in dom0: /var/log/xen/qemu-dm-${NAME}.log; xenstore-ls /local/domain/${stub}/device-model/${target}/agent`,
      "   scripts/demo --keep     the same, and a prompt in dom0 with the guest running",
      "   scripts/lab/shell       a prompt in the dom0 of such a host",
      "   scripts/test            all tests",
      "   README.md               how to use it on a Xen host of your own",
    ].join("\n"),
  );
  return guest;
}

function title(text: string): void {
  console.log(`\n${text}`);
}

function indent(text: string): string {
  return text.trimEnd().replace(/^/gm, "   ");
}

function description(release: Dom0Release): string {
  return release === "trixie" ? "Debian 13's Xen 4.20 and dom0" : "Debian 12's Xen 4.17 and dom0";
}

async function build(): Promise<void> {
  const words = ["--import", "tsx", "bundler/build.ts"];
  const child = spawn(process.execPath, words, { cwd: PROJECT, stdio: "inherit" });
  process.once("exit", () => child.kill());
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("exit", resolve);
  });
  if (status !== 0) throw new Error("the build failed; its last lines are above");
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));
try {
  process.exitCode = await main();
} catch (error) {
  console.error(`\nscripts/demo: ${error instanceof Error ? error.message : String(error)}`);
  process.exitCode = 1;
}
