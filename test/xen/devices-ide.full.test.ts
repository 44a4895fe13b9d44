/** IDE disks, more of them than QEMU emulates, SCSI disks, Cirrus and HDA sound; and two disks that are one to Linux. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { pciOf, sumsOf } from "./devices/guests.ts";
import { refused } from "./devices/refused.ts";
import { askGuest, randomFile } from "./support.ts";

const small = 256 << 10;
const ide = ["hdb", "hdc", "hdd"];
/** Letters that no IDE disk has: Linux calls hdb and sdb alike. */
const scsi = ["sdf", "sdg"];

let host: LabHost;
let guest: Guest;
/** What is in dom0's files: name in the configuration -> hash. */
const sums: Record<string, string> = {};
const file = (vdev: string) => `/root/ide/${vdev}.img`;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  for (const vdev of [...ide, "xvde", ...scsi]) sums[vdev] = await randomFile(host, file(vdev), small);
  guest = await createGuest(host, {
    name: "ide",
    images: { hda: await guestDisk({ jobs: ["sha256", "fb", "pci"], cmdline: "quiet" }) },
    disks: [
      ...[...ide, "xvde", "sdf"].map((vdev) => ({ vdev, target: file(vdev) })),
      { vdev: "sdg", target: file("sdg"), readOnly: true },
    ],
    extra: { vga: "cirrus", soundhw: "hda" },
  });
  // The firmware reads an IDE disk word by word, each a trap: minutes, under emulation.
  await guest.waitForSerial("guest: ready", 1800);
}, 40 * 60_000);

afterAll(async () => {
  await host?.stop();
});

/** The guest's name of the disk with these contents: which controller it finds first is its own affair. */
function named(vdev: string): string {
  return Object.entries(sumsOf(guest)).find(([, sum]) => sum === sums[vdev])?.[0] ?? `(no ${vdev})`;
}

describe("four IDE disks and one too many, two SCSI disks", () => {
  it("has four IDE and two SCSI disks with their contents, and the log names the seventh", async () => {
    expect(guest.serial.match(/guest: disk sd[a-z] /g)).toHaveLength(6);
    const seen = Object.values(sumsOf(guest));
    for (const vdev of [...ide, ...scsi]) expect(seen).toContain(sums[vdev]);
    expect(seen).not.toContain(sums.xvde);
    expect(await guest.qemuDmLog()).toMatch(/ warn .*disk xvde .*is not emulated/);
  });

  it.each(["hdd", "sdf"])("writes to %s what dom0 then has in its file", async (vdev) => {
    const written = await askGuest(guest, `writedisk ${named(vdev)} 256`, /guest: written \S+ (\S+)/);
    expect(written).toMatch(/^[0-9a-f]{64}$/);
    const { stdout } = await host.run(`sha256sum < ${file(vdev)}`);
    expect(stdout.split(" ")[0]).toBe(written);
  });

  it("cannot write to the read-only one", async () => {
    const name = named("sdg");
    const ro = `cat /sys/block/${name}/ro | sed 's/^/guest: ro /'`;
    expect(await askGuest(guest, ro, /guest: ro (\d)/)).toBe("1");
    expect(await askGuest(guest, `writedisk ${name} 64`, /guest: written \S+ (\S+)/)).toBe("failed");
    expect((await host.run(`sha256sum < ${file("sdg")}`)).stdout.split(" ")[0]).toBe(sums.sdg);
  });

  it("sets a graphics mode, and has the devices", () => {
    expect(guest.serial).toMatch(/guest: fb 0 cirrus\S* \d+,\d+/);
    expect(pciOf(guest)).toEqual(
      expect.arrayContaining(["1000:0012", "8086:2668", "8086:7010", "1013:00b8"]),
    );
  });

  it("leaves the stub domain memory, with seven disks", async () => {
    const { memory = "" } = await guest.agent();
    console.log(`the stub domain's memory with seven disks: ${memory}`);
    expect(Number(/least (\d+)/.exec(memory)?.[1])).toBeGreaterThan(4096);
    expect(await guest.qemuDmLog()).not.toMatch(/out of memory|oom/i);
  });
});

it("two disks of one letter fail xl create, and the log names both", async () => {
  const disks = ["hdb", "sdb"].map((vdev) => ({ vdev, target: file("hdb") }));
  expect(await refused(host, "letter", {}, { disks })).toMatch(
    /disk hdb .* and disk sdb .* are both \/dev\/xvdb in a stub domain; give one of them another last letter/,
  );
});
