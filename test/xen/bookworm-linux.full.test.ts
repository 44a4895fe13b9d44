/** Linux under Debian 12's unmodified dom0, Xen 4.17 and QEMU 7.2: its whole boot, and the disk that it reads. */

import { afterAll, beforeAll, expect, it } from "vitest";
import { bootGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";

let host: LabHost;
let guest: Guest | undefined;

beforeAll(async () => {
  host = await LabHost.start({ dom0: "bookworm", saved: true });
});

afterAll(async () => {
  await guest?.destroy();
  await host?.stop();
});

it("serves a guest that boots from its disk", async () => {
  expect((await host.run("xl info xen_version")).stdout).toMatch(/^4\.17/);
  const options = {
    name: "older",
    images: { hda: await guestDisk({ jobs: ["sha256"], cmdline: "quiet" }) },
    nics: [{ mac: "00:16:3e:00:00:01", bridge: "xenbr0", model: "e1000" }],
    extra: { hdtype: "ahci" },
  };
  const began = Date.now();
  guest = await bootGuest(host, options, "guest: ready", 900);
  console.log(`ready ${((Date.now() - began) / 1000).toFixed(0)} s after xl create was called`);
  expect(guest.serialLines).toContain("guest: nic eth0 00:16:3e:00:00:01 e1000");
  // The guest has counted this boot on its disk before it read all of it.
  const held = (await host.run("sha256sum < /root/older/hda.img")).stdout.slice(0, 64);
  expect(guest.serialLines).toContain("guest: boots 1");
  expect(guest.serial).toContain(`guest: sha256 sda ${held}`);
  expect(await guest.agent()).toMatchObject({ phase: "running" });
  expect(await guest.qemuDmLog()).not.toMatch(/ error /);
});
