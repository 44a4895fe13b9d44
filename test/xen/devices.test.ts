/**
 * One guest with AHCI disks (raw, qcow2), three NICs of two models, serial ports, stdvga, AC97 and USB 3, and an option
 * that cannot be had: what each run has time for. `devices-*.full.test.ts` have the rest.
 */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bootGuest, type Guest, type GuestOptions } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { FrailFiles, frailRoot } from "./devices/frail.ts";
import {
  bridgeOf,
  dom0Of,
  macOf,
  networkJobs,
  nicName,
  ownOf,
  pciOf,
  sum,
  sumsOf,
  three,
  threeNetworks,
  write,
} from "./devices/guests.ts";
import { refused } from "./devices/refused.ts";
import { askGuest, randomFile, waitForLog } from "./support.ts";

const small = 256 << 10;

let host: LabHost;
let guest: Guest;
let frail: FrailFiles;
let raw: string;
let qcow2: string;
/** Takes libxl's 30 s, while the guest boots. */
let refusal: Promise<string> | undefined;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  await threeNetworks(host);
  frail = await FrailFiles.mount(host, 4);
  await randomFile(host, `${frailRoot}/disk.img`, small);
  raw = await randomFile(host, "/root/matrix/raw.img", small);
  qcow2 = await randomFile(host, "/root/matrix/plain.img", small);
  await host.run("cd /root/matrix && qemu-img convert -O qcow2 plain.img disk.qcow2");
  const jobs = ["sha256", "fb", "pci", "serial:ttyS1:2", ...networkJobs];
  const options: GuestOptions = {
    name: "matrix",
    memory: 96,
    images: { hda: await guestDisk({ jobs, cmdline: "quiet" }) },
    disks: [
      { vdev: "hdb", target: `${frailRoot}/disk.img`, backend: "phy" },
      // AHCI has six places; libxl knows them by these names alone.
      { vdev: "xvde", target: "/root/matrix/raw.img", backend: "phy" },
      { vdev: "xvdf", target: "/root/matrix/disk.qcow2", format: "qcow2" },
    ],
    // Their order in the guest's configuration is not that of their drivers. One e1000, because its driver
    // reads a serial memory bit by bit, each a trap.
    nics: three.map((n) => ({
      mac: macOf(n),
      model: n === 1 ? "e1000" : "rtl8139",
      bridge: bridgeOf(n),
    })),
    serials: ["pty", "file:/root/matrix/serial", "pty", "pty"],
    extra: { hdtype: "ahci", vga: "stdvga", usbversion: 3, soundhw: "ac97" },
  };
  guest = await bootGuest(host, options, "guest: ready", 400, () => {
    refusal ??= refused(host, "soundhw", { soundhw: "gus" });
    refusal.catch(() => {}); // told by the test
  });
});

afterAll(async () => {
  await host?.stop();
});

describe("AHCI, qcow2, three NICs, serial ports, stdvga, USB 3 and AC97", () => {
  it("has every disk with its contents", () => {
    expect(sumsOf(guest)).toMatchObject({ sdc: raw, sdd: qcow2 });
  });

  it("has each NIC by its MAC, and packets go both ways on all at once", async () => {
    expect(guest.serial).toMatch(new RegExp(`guest: nic eth\\d ${macOf(1)} e1000`));
    for (const n of [0, 2]) expect(guest.serial).toMatch(new RegExp(`guest: nic eth\\d ${macOf(n)} 8139`));
    for (const n of three) expect(guest.serial).toContain(`guest: pings ${dom0Of(n)} 5`);
    const pings = await Promise.all(
      three.map((n) => host.run(`ping -c 5 -i 0.3 -W 20 ${ownOf(n)}`, { accept: "any" })),
    );
    expect(pings.map(({ stdout }) => / (\d+) received/.exec(stdout)?.[1])).toEqual(["5", "5", "5"]);
  });

  it("sets a graphics mode", () => {
    expect(guest.serial).toMatch(/guest: fb 0 bochs-drm\S* \d+,\d+/);
  });

  it("has a sound device and USB 3, and is not ended by them", () => {
    expect(pciOf(guest)).toEqual(expect.arrayContaining(["8086:2415", "1033:0194"]));
  });

  it("sends raw bytes on its second serial port, into a file", async () => {
    const sent = /guest: serial ttyS1 2 ([0-9a-f]{64})/.exec(guest.serial)?.[1];
    const { stdout } = await host.run("wc -c < /root/matrix/serial; sha256sum < /root/matrix/serial");
    expect(stdout.split("\n")).toEqual([String(2 << 10), `${sent}  -`, ""]);
  });

  it("has its serial ports' modem lines up, as with QEMU in dom0: nothing waits for a CTS", async () => {
    const line = `echo "guest:" port $(sed -n 's/^2: //p' /proc/tty/driver/serial)`;
    expect(await askGuest(guest, line, /guest: port (.*)/)).toMatch(/16550A .*CTS.*DSR.*CD/);
  });

  it("is not disturbed by a PV disk that comes and goes: it is the guest's alone", async () => {
    const stubdom = await guest.stubdomId();
    const disks = () => host.run(`xenstore-list /local/domain/${stubdom}/device/vbd`);
    const { stdout: before } = await disks();
    // On a busy machine the boot may have had something to say, of devices that were late.
    const said = await guest.qemuDmLog();
    await host.run("truncate -s 1M /root/matrix/pv.img");
    const spec = "format=raw,vdev=xvdh,access=rw,target=/root/matrix/pv.img";
    await host.run(["xl", "block-attach", guest.name, spec]);
    expect((await disks()).stdout).toBe(before);
    expect((await host.run(["xl", "block-list", guest.name])).stdout).toMatch(/^51824 /m);
    // Without a PV driver in the guest libxl waits 10 s, and then removes it by force.
    await host.run(["xl", "block-detach", guest.name, "xvdh"], { timeout: 60, accept: "any" });
    expect(await sum(guest, "sdc")).toBe(raw);
    expect((await guest.qemuDmLog()).slice(said.length)).not.toMatch(/ (error|warn) /);
  });

  it("loses its link, and every packet, when dom0 detaches a NIC, and no other", async () => {
    const link = (n: number) => askGuest(guest, `linkof ${nicName(guest, n)}`, /guest: link eth\d (up|down)/);
    expect(await link(1)).toBe("up");
    await host.run(["xl", "network-detach", guest.name, "1"], { timeout: 60, accept: "any" });
    await waitForLog(guest, /NIC 1 \(00:16:3e:00:00:11\): it was detached in dom0/);
    expect(await link(1)).toBe("down");
    const lost = await host.run(`ping -c 3 -i 0.3 -W 2 ${ownOf(1)}`, { accept: "any" });
    expect(lost.stdout).toContain(" 0 received");
    expect(await link(0)).toBe("up");
    expect((await host.run(`ping -c 3 -i 0.3 -W 20 ${ownOf(0)}`)).stdout).toContain(" 3 received");
  });

  it("is not saved with the NIC that libxl does not know any more, and goes on", async () => {
    const save = await host.run(["xl", "save", guest.name, "/root/matrix/saved"], {
      timeout: 120,
      accept: "any",
    });
    expect(save.status, save.stderr).not.toBe(0);
    expect(await guest.qemuDmLog()).toMatch(/ error .*NIC 1 \(00:16:3e:00:00:11\): detached in dom0/);
    expect((await host.run(`ping -c 3 -i 0.3 -W 20 ${ownOf(0)}`)).stdout).toContain(" 3 received");
  });
});

it("a flush that dom0 cannot carry out fails in the guest, and so does each later one", async () => {
  expect(await write(guest, "sdb")).toMatch(/^[0-9a-f]{64}$/);
  await frail.becomes("broken");
  expect(await write(guest, "sdb")).toBe("failed");
  await waitForLog(guest, / error .*disk hdb.*: a write failed/);
  await frail.becomes("well");
  expect(await write(guest, "sdb")).toBe("failed");
});

it("what the guest has flushed is in dom0's files when the stub domain ends the next instant", async () => {
  const written = [await write(guest, "sdc"), await write(guest, "sdd")];
  await guest.destroy();
  const { stdout } = await host.run(
    `cd /root/matrix && qemu-img convert -O raw disk.qcow2 qcow2.img && for file in raw qcow2; do
       head -c 65536 $file.img | sha256sum; done`,
  );
  expect(stdout.match(/[0-9a-f]{64}/g)).toEqual(written);
});

it("a sound card that QEMU does not have here fails xl create, with what to choose in the log", async () => {
  expect(await refusal).toMatch(/no such sound device here; choose soundhw="ac97"/);
});
