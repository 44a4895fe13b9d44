/** The same image under Debian 12's unmodified dom0: Xen 4.17, QEMU 7.2, whose consoles behave the older way. */

import { afterAll, beforeAll, expect, it } from "vitest";
import { createGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";

let host: LabHost;
let guest: Guest | undefined;

beforeAll(async () => {
  host = await LabHost.start({ dom0: "bookworm" });
});

afterAll(async () => {
  await guest?.destroy();
  await host?.stop();
});

it("serves a guest that boots from its disk", async () => {
  expect((await host.run("xl info xen_version")).stdout).toMatch(/^4\.17/);
  guest = await createGuest(host, {
    name: "older",
    images: { hda: await guestDisk({ jobs: ["sha256"], cmdline: "quiet" }) },
    nics: [{ mac: "00:16:3e:00:00:01", bridge: "xenbr0", model: "e1000" }],
    extra: { hdtype: "ahci" },
  });
  await guest.waitForSerial("guest: nic eth0 00:16:3e:00:00:01 e1000", 300);
  await guest.waitForSerial("guest: ready", 120);
  expect(await guest.agent()).toMatchObject({ phase: "running" });
  expect(await guest.qemuDmLog()).not.toMatch(/ error /);
});
