/**
 *
 * Guests with each kind of disk, NIC, graphics and console that `xl` can name; each tells what it sees. Few
 * guests with many devices each, because a boot takes a minute or more.
 */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createGuest, type Guest, prepareGuest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { askGuest, randomFile, waitForLog } from "./support.ts";

const boot = 400;
const small = 256 << 10;

let host: LabHost;

beforeAll(async () => {
  host = await LabHost.start({ dom0: "trixie" });
  // A network of its own for each NIC of the first guest.
  for (const n of [0, 1, 2]) {
    const bridge = `xenbr${n}`;
    await host.run(
      `ip link show ${bridge} > /dev/null 2>&1 || ip link add ${bridge} type bridge
       ip link set ${bridge} up && ip addr add 10.9.${n}.1/24 dev ${bridge}`,
    );
  }
});

afterAll(async () => {
  await host?.stop();
});

/** What the guest read of each disk at boot: name -> hash. */
function sumsOf(guest: Guest): Record<string, string> {
  const lines = guest.serialLines.flatMap((line) => [
    ...line.matchAll(/guest: sha256 (\S+) ([0-9a-f]{64})/g),
  ]);
  return Object.fromEntries(lines.map(([, disk = "", sum = ""]) => [disk, sum]));
}

/** Vendor and device of all that is on the guest's PCI bus. */
function pciOf(guest: Guest): string[] {
  return guest.serialLines.flatMap((line) => /guest: pci \S+ (\S+)/.exec(line)?.[1] ?? []);
}

const firstSum = (guest: Guest, disk: string) => askGuest(guest, `sumdisk ${disk}`, /guest: sum \S+ (\S+)/);

describe("AHCI, qcow2, a CD, three NICs, two serial ports, stdvga, tablet and AC97", () => {
  const macs = [0, 1, 2].map((n) => `00:16:3e:00:00:1${n}`);
  const own = (n: number) => `10.9.${n}.2`;
  let guest: Guest;
  let raw: string;
  let qcow2: string;
  let cd: string;

  beforeAll(async () => {
    raw = await randomFile(host, "/root/matrix/raw.img", small);
    qcow2 = await randomFile(host, "/root/matrix/plain.img", small);
    await host.run("cd /root/matrix && qemu-img convert -O qcow2 plain.img disk.qcow2");
    cd = await randomFile(host, "/root/matrix/cd.iso", small);
    const jobs = [
      ...["sha256", "fb", "pci", "serial:ttyS1:64"],
      ...macs.map((mac, n) => `net:${mac.replaceAll(":", "")}:${own(n)}/24`),
      `pings:5:${[0, 1, 2].map((n) => `10.9.${n}.1`).join("+")}`,
    ];
    guest = await createGuest(host, {
      name: "matrix",
      memory: 96,
      images: { hda: await guestDisk({ jobs, cmdline: "quiet" }) },
      disks: [
        { vdev: "hdb", target: "/root/matrix/raw.img", backend: "phy" },
        { vdev: "hdc", target: "/root/matrix/disk.qcow2", format: "qcow2" },
        { vdev: "hdd", target: "/root/matrix/cd.iso", cdrom: true },
      ],
      // Their order in the guest's configuration is not that of their bridges.
      nics: [
        { mac: macs[0] ?? "", model: "e1000", bridge: "xenbr0" },
        { mac: macs[1] ?? "", model: "rtl8139", bridge: "xenbr1" },
        { mac: macs[2] ?? "", model: "e1000", bridge: "xenbr2" },
      ],
      serials: ["pty", "file:/root/matrix/serial"],
      extra: { hdtype: "ahci", vga: "stdvga", usb: true, usbdevice: "tablet", soundhw: "ac97" },
    });
    await guest.waitForSerial("guest: ready", 2 * boot);
  }, 20 * 60_000);

  afterAll(async () => {
    await guest?.destroy();
  });

  it("has every disk with its contents", () => {
    expect(sumsOf(guest)).toMatchObject({ sdb: raw, sdc: qcow2, sr0: cd });
  });

  it("has each NIC by its MAC, and packets go both ways on all at once", async () => {
    expect(guest.serial).toMatch(/guest: nic eth\d 00:16:3e:00:00:11 8139/);
    expect(guest.serial.match(/guest: nic eth\d 00:16:3e:00:00:1[02] e1000/g)).toHaveLength(2);
    for (const n of [0, 1, 2]) expect(guest.serial).toContain(`guest: pings 10.9.${n}.1 5`);
    const pings = await Promise.all(
      [0, 1, 2].map((n) => host.run(`ping -c 5 -W 20 ${own(n)}`, { accept: "any" })),
    );
    expect(pings.map(({ stdout }) => / (\d+) received/.exec(stdout)?.[1])).toEqual(["5", "5", "5"]);
  });

  it("sets a graphics mode", () => {
    expect(guest.serial).toMatch(/guest: fb 0 bochs-drm\S* \d+,\d+/);
  });

  it("has a sound device and USB, and is not ended by them", () => {
    expect(pciOf(guest)).toEqual(expect.arrayContaining(["8086:2415", "8086:7020"]));
  });

  it("sends raw bytes on its second serial port", async () => {
    const sent = /guest: serial ttyS1 64 ([0-9a-f]{64})/.exec(guest.serial)?.[1];
    const { stdout } = await host.run("wc -c < /root/matrix/serial; sha256sum < /root/matrix/serial");
    expect(stdout.split("\n")).toEqual([String(64 << 10), `${sent}  -`, ""]);
  });

  it("is not disturbed by a PV disk that comes and goes: it is the guest's alone", async () => {
    const stubdom = await guest.stubdomId();
    const disks = () => host.run(`xenstore-list /local/domain/${stubdom}/device/vbd`);
    const { stdout: before } = await disks();
    await host.run("truncate -s 1M /root/matrix/pv.img");
    await host.run([
      "xl",
      "block-attach",
      guest.name,
      "format=raw,vdev=xvdh,access=rw,target=/root/matrix/pv.img",
    ]);
    expect((await disks()).stdout).toBe(before);
    expect(await firstSum(guest, "sdb")).toBe(raw);
    // Without a PV driver in the guest libxl waits 10 s, and then removes it by force.
    await host.run(["xl", "block-detach", guest.name, "xvdh"], { timeout: 60, accept: "any" });
    expect(await firstSum(guest, "sdb")).toBe(raw);
    expect(await guest.qemuDmLog()).not.toMatch(/ (error|warn) /);
  });

  it("loses its link, and every packet, when dom0 detaches a NIC, and no other", async () => {
    const name = (mac: string) => new RegExp(`guest: nic (eth\\d) ${mac}`).exec(guest.serial)?.[1] ?? "";
    const link = (n: number) =>
      askGuest(guest, `linkof ${name(macs[n] ?? "")}`, /guest: link eth\d (up|down)/);
    expect(await link(1)).toBe("up");
    await host.run(["xl", "network-detach", guest.name, "1"], { timeout: 60, accept: "any" });
    await waitForLog(guest, /NIC 1 \(00:16:3e:00:00:11\): it was detached in dom0/);
    expect(await link(1)).toBe("down");
    expect((await host.run(`ping -c 3 -W 2 ${own(1)}`, { accept: "any" })).stdout).toContain(" 0 received");
    expect(await link(0)).toBe("up");
    expect((await host.run(`ping -c 3 -W 20 ${own(0)}`)).stdout).toContain(" 3 received");
  });

  it("is told of a disk error, and so is dom0", async () => {
    // The loop device behind the disk reads past the end of its file.
    await host.run("truncate -s 4096 /root/matrix/raw.img && sync && echo 3 > /proc/sys/vm/drop_caches");
    expect(await firstSum(guest, "sdb")).toBe("failed");
    const line = await waitForLog(guest, / error .*disk hdb \(ahcidisk-1\): a read failed/);
    expect(line).toContain("the guest was told");
    expect((await guest.agent()).error).toContain("disk hdb");
    // The guest tries again and again: one line, and at most one more every 10 s.
    const lines = (await guest.qemuDmLog()).match(/disk hdb \(ahcidisk-1\)/g)?.length ?? 0;
    expect(lines).toBeLessThanOrEqual(6);
  });
});

describe("IDE disks, more of them than QEMU emulates, and Cirrus graphics", () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await createGuest(host, {
      name: "ide",
      images: { hda: await guestDisk({ jobs: ["fb", "write:sdb"], cmdline: "quiet" }) },
      disks: await Promise.all(
        ["hdb", "hdc", "hdd", "xvde"].map(async (vdev) => {
          await randomFile(host, `/root/ide/${vdev}.img`, small);
          return { vdev, target: `/root/ide/${vdev}.img` };
        }),
      ),
      extra: { vga: "cirrus" },
    });
    // The firmware reads an IDE disk word by word, each a trap: minutes, under emulation.
    await guest.waitForSerial("guest: ready", 4 * boot);
  }, 40 * 60_000);

  afterAll(async () => {
    await guest?.destroy();
  });

  it("has four, and the log names the fifth", async () => {
    expect(guest.serial.match(/guest: disk sd[a-z] /g)).toHaveLength(4);
    expect(await guest.qemuDmLog()).toMatch(/ warn .*disk xvde .*is not emulated/);
  });

  it("writes what dom0 then has in its file", async () => {
    const written = /guest: wrote sdb ([0-9a-f]{64})/.exec(guest.serial)?.[1];
    const { stdout } = await host.run("sha256sum < /root/ide/hdb.img");
    expect(stdout.split(" ")[0]).toBe(written);
  });

  it("sets a graphics mode", () => {
    expect(guest.serial).toMatch(/guest: fb 0 cirrus\S* \d+,\d+/);
  });
});

describe("SCSI disks, one of them read-only, no graphics card, HDA sound and USB 3", () => {
  let guest: Guest;
  let sums: string[];

  beforeAll(async () => {
    sums = [
      await randomFile(host, "/root/scsi/sdb.img", small),
      await randomFile(host, "/root/scsi/sdc.img", small),
    ];
    guest = await createGuest(host, {
      name: "scsi",
      images: { hda: await guestDisk({ jobs: ["sha256", "pci"], cmdline: "quiet" }) },
      disks: [
        { vdev: "sdb", target: "/root/scsi/sdb.img" },
        { vdev: "sdc", target: "/root/scsi/sdc.img", readOnly: true },
      ],
      extra: { hdtype: "ahci", vga: "none", soundhw: "hda", usbversion: 3 },
    });
    await guest.waitForSerial("guest: ready", 2 * boot);
  }, 20 * 60_000);

  afterAll(async () => {
    await guest?.destroy();
  });

  it("has every disk with its contents", () => {
    // Which controller the guest finds first is its own affair.
    expect(Object.values(sumsOf(guest))).toEqual(expect.arrayContaining(sums));
  });

  it("cannot write to the read-only one", async () => {
    const name = Object.entries(sumsOf(guest)).find(([, sum]) => sum === sums[1])?.[0] ?? "";
    const written = `cat /sys/block/${name}/ro | sed 's/^/guest: ro /'`;
    expect(await askGuest(guest, written, /guest: ro (\d)/)).toBe("1");
  });

  it("has the devices, and no graphics card", () => {
    expect(pciOf(guest)).toEqual(expect.arrayContaining(["1000:0012", "8086:2668", "1033:0194"]));
    expect(pciOf(guest)).not.toContain("1234:1111");
    expect(pciOf(guest)).not.toContain("1013:00b8");
  });
});

describe("what cannot be had", () => {
  it.each([
    ["soundhw", "gus", {}, /no such sound device here; choose soundhw="ac97"/],
    ["vga", "qxl", { memory: 256 }, /QXL here.*; choose vga="stdvga"/],
    ["videoram", 32, { vga: "cirrus" }, /a Cirrus card has 4, 8, 16 MB; choose videoram=8 or 16/],
    ["usbdevice", "host:1.2", { usb: true }, /usbdevice= takes tablet, mouse, keyboard/],
  ])("%s=%s fails early, with what to change", async (option, value, more, expected) => {
    const name = `refused-${option}`;
    const { memory = 64, ...extra } = more as { memory?: number };
    const config = await prepareGuest(host, {
      name,
      memory,
      images: { hda: 1 },
      extra: { ...extra, [option]: value },
    });
    await host.push(Buffer.from(config), `/root/${name}/guest.cfg`);
    const { status } = await host.run(["xl", "create", `/root/${name}/guest.cfg`], {
      timeout: 120,
      accept: "any",
    });
    expect(status).not.toBe(0);
    expect((await host.run(`cat /var/log/xen/qemu-dm-${name}.log`)).stdout).toMatch(expected);
    await host.run(["xl", "destroy", name], { accept: "any" });
  });
});
