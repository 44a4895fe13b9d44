/** One guest with three NICs, four serial ports, a CD drive: its network is knocked at, and all at once. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { guestProbe } from "../../scripts/bench/probe.ts";
import { createGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import {
  bridgeOf,
  dom0Of,
  macOf,
  networkJobs,
  nicName,
  ownOf,
  sum,
  three,
  threeNetworks,
  write,
} from "./devices/guests.ts";
import { loadTests } from "./devices/load.ts";
import { silenceTests } from "./devices/silence.ts";
import { askGuest, inStubdom, randomFile, tellOnFailure, waitForLog, withShell } from "./support.ts";

const small = 256 << 10;

let host: LabHost;
let guest: Guest;
let raw: string;

/** A device of dom0's that can be told to fail: it lies over a file. Its contents' hash. */
async function fragileDisk(name: string, path: string): Promise<string> {
  const hash = await randomFile(host, path, small);
  await host.run(
    `modprobe dm-mod && loop=$(losetup -f --show ${path}) && dmsetup create ${name} --table "0 ${small / 512} linear $loop 0"`,
  );
  return hash;
}

/** From now on this device of dom0's answers by the table: `error`, or as before by `linear DEVICE 0`. */
async function setTable(name: string, table: string): Promise<void> {
  await host.run(
    `dmsetup suspend --nolockfs --noflush ${name} && dmsetup load ${name} --table "0 ${small / 512} ${table}" && dmsetup resume ${name}`,
  );
}

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  await threeNetworks(host);
  raw = await fragileDisk("fragile", "/root/load/raw.img");
  await randomFile(host, "/root/load/scratch.img", small);
  // More of it can be written than dom0 has room for.
  await host.run(
    `mkdir /root/load/full && mount -t tmpfs -o size=64k none /root/load/full && truncate -s ${small} /root/load/full/img`,
  );
  await randomFile(host, "/root/load/cd.iso", small);
  guest = await createGuest(host, {
    name: "load",
    memory: 96,
    images: {
      hda: await guestDisk({
        jobs: ["keepprobe", ...networkJobs],
        cmdline: "quiet",
        files: { probe: await guestProbe() },
      }),
    },
    disks: [
      { vdev: "xvdd", target: "/root/load/full/img" },
      { vdev: "xvde", target: "/dev/mapper/fragile", backend: "phy" },
      { vdev: "xvdf", target: "/root/load/scratch.img" },
      { vdev: "hdc", target: "/root/load/cd.iso", cdrom: true, backend: "phy" },
    ],
    nics: three.map((n) => ({ mac: macOf(n), model: n === 1 ? "e1000" : "rtl8139", bridge: bridgeOf(n) })),
    serials: ["pty", "pty", "pty", "pty"],
    stubdom: withShell,
    extra: {
      ...{ hdtype: "ahci", vga: "stdvga", vnc: true, vnclisten: "127.0.0.1", vncunused: false },
      device_model_args_pv: ["-vga", "xenfb"],
    },
  });
  await guest.waitForSerial("guest: ready", 800);
}, 20 * 60_000);

afterAll(async () => {
  await host?.stop();
});

tellOnFailure(() => ({ host, guest }), "load");

describe("three NICs, four serial ports and a CD drive", () => {
  silenceTests(() => guest, { devid: 1, own: ownOf(1), name: () => nicName(guest, 1) });

  loadTests(() => guest, {
    drive: { vdev: "hdc", devid: 5632, linux: "sr0" },
    scratch: "sdd",
    networks: three.map((n) => ({ own: ownOf(n), dom0: dom0Of(n) })),
  });

  it("is told of an error of dom0's disk, reading and writing, and so is dom0", async () => {
    // What was read before is in the stub domain's page cache, where no error can reach it.
    await inStubdom(guest, "echo 3 > /proc/sys/vm/drop_caches");
    await setTable("fragile", "error");
    expect(await sum(guest, "sdc")).toBe("failed");
    const line = await waitForLog(guest, / error .*disk xvde .*: a read failed/);
    expect(line).toContain("the guest was told");
    expect((await guest.agent()).error).toContain("disk xvde");
    // And it goes on once the disk does.
    await setTable("fragile", "linear $(losetup -j /root/load/raw.img -n -O NAME) 0");
    expect(await sum(guest, "sdc")).toBe(raw);
    // Into the stub domain's page cache first: the flush has the error.
    await setTable("fragile", "error");
    expect(await write(guest, "sdc")).toBe("failed");
    await waitForLog(guest, / error .*disk xvde .*: a write failed/);
    // The guest tries again and again: one line for each kind, and at most one more every 10 s.
    const lines = (await guest.qemuDmLog()).match(/disk xvde /g)?.length ?? 0;
    expect(lines).toBeLessThanOrEqual(16);
  });

  it("is told when dom0's disk is full", async () => {
    expect(await write(guest, "sdb", 192)).toBe("failed");
    await waitForLog(guest, / error .*disk xvdd .*: a write failed/);
  });

  it("gives dom0's file system back what it discards", async () => {
    const blocks = async () => Number((await host.run("stat -c %b /root/load/scratch.img")).stdout);
    expect(await blocks()).toBeGreaterThan(0);
    await askGuest(guest, "blkdiscard /dev/sdd && echo discarded: all", /^discarded: (all)/);
    expect(await blocks()).toBe(0);
  });
});
