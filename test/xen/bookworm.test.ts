/** The same image under Debian 12's unmodified dom0: Xen 4.17, QEMU 7.2, whose consoles behave the older way. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { buildRoot } from "../../bundler/root.ts";
import { screenGuest } from "../../scripts/bench/screen-guest.ts";
import { bootGuest, createGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { full } from "./support.ts";

let host: LabHost;
let guest: Guest | undefined;

beforeAll(async () => {
  host = await LabHost.start({ dom0: "bookworm", saved: true });
});

afterAll(async () => {
  await guest?.destroy();
  await host?.stop();
});

/*
 * The firmware and the boot loader read 5 MB from the disk, and start the kernel. It stops there, before it has
 * said a word: under this emulator Xen 4.17 leaves any Linux guest at its first page fault, also one whose QEMU is
 * in dom0, and also Debian's own kernel. So this is as far as a guest gets on this host.
 */
it.runIf(full)("serves a guest that boots from its disk", async () => {
  expect((await host.run("xl info xen_version")).stdout).toMatch(/^4\.17/);
  guest = await createGuest(host, {
    name: "older",
    images: { hda: await guestDisk({ jobs: ["sha256"] }) },
    nics: [{ mac: "00:16:3e:00:00:01", bridge: "xenbr0", model: "e1000" }],
    extra: { hdtype: "ahci" },
  });
  const agent = await guest.agent();
  expect(agent).toMatchObject({ phase: "running" });
  await guest.waitForSerial("Loading kernel... ok", 240);
  await guest.waitForSerial("Loading initrd...ok", 60);
  expect(await guest.qemuDmLog()).not.toMatch(/ error /);
});

// A guest that needs no page tables gets further: to the end.
it("serves a guest that draws, and hears its keyboard and its serial port", async () => {
  await guest?.destroy();
  const directory = mkdtempSync(join(tmpdir(), "bookworm-"));
  try {
    const options = {
      name: "draws",
      images: { hda: await screenGuest((await buildRoot()).path, directory) },
      extra: { hdtype: "ahci" },
    };
    guest = await bootGuest(host, options, "ready", 120);
    for (const mode of ["t", "a", "b"]) {
      const from = guest.serialLines.length;
      guest.type(mode);
      await guest.waitForSerial("drawn", 120, from);
    }
    const from = guest.serialLines.length;
    await host.run(["xl", "qemu-monitor-command", "draws", "sendkey a"]);
    // Pressed and released, in scan codes of set 1.
    await guest.waitForSerial("k1e", 30, from);
    await guest.waitForSerial("k9e", 30, from);
    expect(await guest.agent()).toMatchObject({ phase: "running" });
  } finally {
    rmSync(directory, { recursive: true });
  }
});
