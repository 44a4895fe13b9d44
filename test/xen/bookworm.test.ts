/** The same image under Debian 12's unmodified dom0: Xen 4.17, QEMU 7.2, whose consoles behave the older way. */

import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { buildRoot } from "../../bundler/root.ts";
import { screenGuest } from "../../scripts/bench/screen-guest.ts";
import { bootGuest, type Guest } from "../../scripts/lab/guest.ts";
import { LabHost } from "../../scripts/lab/host.ts";

let host: LabHost;
let guest: Guest | undefined;

beforeAll(async () => {
  // The quicker emulator, in which no guest of this Xen can read CR2: this one has no page faults.
  host = await LabHost.start({ dom0: "bookworm", emulator: "trixie", saved: true });
});

afterAll(async () => {
  await guest?.destroy();
  await host?.stop();
});

it("serves a guest that draws, and hears its keyboard and its serial port", async () => {
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
