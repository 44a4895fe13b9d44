/**
 * A guest with PV drivers, as distributions' kernels are: it has QEMU give up its emulated disks and NIC, and takes dom0's
 * own backends in their place. The stub domain is left with the rest, and must mind none of it.
 */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildGuestKernel } from "../../bundler/kernel.ts";
import { buildRoot } from "../../bundler/root.ts";
import { bootGuest, Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { installHelper, startHelper } from "../../scripts/lab/helper.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { bridgeOf, dom0Of, macOf, ownOf, sum, sumsOf, threeNetworks, write } from "./devices/guests.ts";
import { expectNoLeaks } from "./save-support.ts";
import { askGuest, randomFile, tellOnFailure, withShell } from "./support.ts";

const small = 256 << 10;

let host: LabHost;
let guest: Guest;
let raw: string;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  await threeNetworks(host);
  await installHelper(host);
  await startHelper(host);
  raw = await randomFile(host, "/root/pv/raw.img", small);
  await randomFile(host, "/root/pv/cd.iso", small);
  const { image } = await buildGuestKernel(await buildRoot(), "pv");
  const jobs = [
    "sha256",
    `net:${macOf(0).replaceAll(":", "")}:${ownOf(0)}/24`,
    `pings:5:${dom0Of(0)}`,
    "beat",
  ];
  const options = {
    name: "pv",
    memory: 128,
    images: { hda: await guestDisk({ kernel: image, jobs, cmdline: "quiet" }) },
    disks: [
      { vdev: "hdb", target: "/root/pv/raw.img" },
      { vdev: "hdc", target: "/root/pv/cd.iso", cdrom: true, backend: "phy" as const },
    ],
    nics: [{ mac: macOf(0), model: "e1000", bridge: bridgeOf(0) }],
    stubdom: withShell,
    extra: { hdtype: "ahci" },
  };
  guest = await bootGuest(host, options, "guest: ready", 600);
}, 40 * 60_000);

afterAll(async () => {
  await host?.stop();
});

tellOnFailure(() => ({ host, guest }), "pv");

/** Nothing of all this is the stub domain's affair. On a busy machine a device may be late, which is said as a warning. */
async function expectUndisturbed(): Promise<void> {
  expect(await guest.qemuDmLog()).not.toMatch(/ error | warn (?!.* is not connected after )/);
  expect(await guest.agent()).toMatchObject({ phase: "running" });
}

/** A device, as a path below /sys; it may take the guest a while. */
const shows = (device: string, there: boolean) =>
  askGuest(
    guest,
    `n=0; until [ ${there ? "" : "! "}-e /sys/${device} ] || [ $n -gt 300 ]; do n=$((n + 1)); usleep 100000; done; ` +
      `[ -e /sys/${device} ] && echo "guest:" shows there || echo "guest:" shows gone`,
    /guest: shows (\w+)/,
  );

describe("a guest with PV drivers", () => {
  it("has its disks by them, with their contents, and no emulated one beside", async () => {
    expect(sumsOf(guest)).toMatchObject({ xvdb: raw });
    expect(guest.serial).toMatch(/guest: disk xvda /);
    expect(guest.serial).not.toMatch(/guest: disk sd/);
    expect(await write(guest, "xvdb")).toBe(
      (await host.run("head -c 65536 /root/pv/raw.img | sha256sum")).stdout.slice(0, 64),
    );
    await expectUndisturbed();
  });

  it("does not wait for the PV keyboard that libxl gives it and nobody serves", async () => {
    const ask = `n=$(dmesg | grep -cE "Timeout connecting|Waiting for devices"); echo "guest:" waits $n`;
    expect(await askGuest(guest, ask, /guest: waits (\d+)/)).toBe("0");
    const states = await host.run(`xenstore-read /local/domain/0/backend/vkbd/$(xl domid pv)/0/state`);
    expect(states.stdout.trim()).toBe("6");
  });

  it("has its NIC by them, and packets go both ways", async () => {
    expect(guest.serial).toMatch(new RegExp(`guest: nic eth0 ${macOf(0)} vif`));
    expect(guest.serial).toContain(`guest: pings ${dom0Of(0)} 5`);
    expect((await host.run(`ping -c 5 -i 0.3 -W 20 ${ownOf(0)}`)).stdout).toContain(" 5 received");
  });

  it("still has QEMU's CD drive, whose medium changes", async () => {
    const next = await randomFile(host, "/root/pv/next.iso", small);
    await host.run(["xl", "cd-insert", guest.name, "hdc", "/root/pv/next.iso"], { timeout: 120 });
    expect(await sum(guest, "sr0")).toBe(next);
    await expectUndisturbed();
  });

  it("takes a disk by xl block-attach and gives it back by block-detach, three times", async () => {
    for (let round = 0; round < 3; round++) {
      const content = await randomFile(host, "/root/pv/attached.img", small);
      const spec = "format=raw,vdev=xvdh,access=rw,target=/root/pv/attached.img";
      await host.run(["xl", "block-attach", guest.name, spec]);
      expect(await shows("block/xvdh", true)).toBe("there");
      expect(await sum(guest, "xvdh")).toBe(content);
      const written = await write(guest, "xvdh");
      await host.run(["xl", "block-detach", guest.name, "xvdh"], { timeout: 60 });
      expect(await shows("block/xvdh", false)).toBe("gone");
      expect((await host.run("head -c 65536 /root/pv/attached.img | sha256sum")).stdout).toContain(written);
    }
    await expectUndisturbed();
  });

  it("is saved and restored with them, and goes on", async () => {
    const content = await sum(guest, "xvdb");
    await host.run(["xl", "save", guest.name, "/root/pv/saved"], { timeout: 300 });
    guest.leave();
    await host.run(["xl", "restore", "/root/pv/saved"], { timeout: 300 });
    guest = new Guest(host, guest.name, 0, true);
    await guest.waitForSerial("guest: beat", 120);
    expect(await sum(guest, "xvdb")).toBe(content);
    expect((await host.run(`ping -c 5 -i 0.3 -W 20 ${ownOf(0)}`)).stdout).toContain(" 5 received");
    await expectNoLeaks(host);
    await expectUndisturbed();
  });

  it("loses its NIC by xl network-detach, and goes on", async () => {
    await host.run(["xl", "network-detach", guest.name, "0"], { timeout: 60 });
    expect(await shows("class/net/eth0", false)).toBe("gone");
    expect(await sum(guest, "xvdb")).toMatch(/^[0-9a-f]{64}$/);
    expect(await guest.agent()).toMatchObject({ phase: "running" });
  });

  it("is shut down by xl shutdown, and its stub domain with it", async () => {
    // What Linux runs when it is asked to; the test guest has no init that would mind a signal.
    const program = "/sbin/poweroff";
    await askGuest(
      guest,
      `mkdir -p /sbin; printf '#!/bin/busybox sh\\npoweroff -f\\n' > ${program}; chmod 755 ${program}; echo "guest:" can end`,
      /guest: can (end)/,
    );
    await host.run(["xl", "shutdown", "-w", guest.name], { timeout: 120 });
    await host.run("for i in $(seq 100); do xl list | grep -q '^pv' || exit 0; sleep 0.2; done; exit 1", {
      timeout: 60,
    });
  });
});
