/**
 * CDs that are changed under a running guest: `devices/cd.ts` says how. The first read of a medium that has just come
 * fails in the guest with QEMU in dom0 too (seen side by side): Linux takes the drive's unit attention for an error,
 * and wants it opened anew.
 */

import { afterAll, beforeAll, describe } from "vitest";
import { bootGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { installHelper, startHelper } from "../../scripts/lab/helper.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { cdTests } from "./devices/cd.ts";
import { randomFile } from "./support.ts";

let host: LabHost;
let guest: Guest;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  await installHelper(host);
  await startHelper(host);
  await randomFile(host, "/root/first.iso", 64 << 10);
  const options = {
    name: "changer",
    memory: 64,
    images: { hda: await guestDisk({ cmdline: "quiet" }) },
    disks: [
      { vdev: "hdb", cdrom: true },
      { vdev: "hdc", target: "/root/first.iso", cdrom: true, backend: "phy" },
      { vdev: "hdd", target: "/root/first.iso", cdrom: true },
    ],
    extra: { hdtype: "ahci" },
  } as const;
  guest = await bootGuest(host, options, "guest: ready", 400);
});

afterAll(async () => {
  await host?.stop();
});

describe("three CD drives of a guest that runs", () => {
  cdTests(
    () => guest,
    { vdev: "hdc", devid: 5632, linux: "sr1" },
    { vdev: "hdb", devid: 832, linux: "sr0" },
    { vdev: "hdd", devid: 5696, linux: "sr2" },
  );
});
