/** What `xl create` takes and what it cannot have, and what the firmware boots: guests that need no operating system. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createGuest } from "../../scripts/lab/guest.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import type { XlGuest } from "../../scripts/lab/xl-config.ts";
import { bridgeOf, macOf, threeNetworks } from "./devices/guests.ts";
import { bootableCd } from "./devices/iso.ts";
import { refused } from "./devices/refused.ts";

let host: LabHost;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  await threeNetworks(host);
});

afterAll(async () => {
  await host?.stop();
});

describe("what xl create takes", () => {
  it.each([
    ["vga=none and no USB", { vga: "none" }, [], ["VGA", "cirrus-vga", "piix3-usb-uhci", "usb-tablet"]],
    ["usbdevice=tablet", { usb: true, usbdevice: "tablet" }, ["piix3-usb-uhci", "usb-tablet"], []],
    [
      "two USB devices, EHCI is libxl's affair",
      { usb: true, usbdevice: ["mouse", "keyboard"] },
      ["usb-mouse", "usb-kbd"],
      [],
    ],
    ["usbversion=2", { usbversion: 2 }, ["ich9-usb-ehci1", "ich9-usb-uhci1"], []],
    [
      "soundhw=es1370 and videoram=32",
      { soundhw: "es1370", vga: "stdvga", videoram: 32 },
      ["ES1370", "vgamem_mb = 32"],
      [],
    ],
    ["soundhw=sb16", { soundhw: "sb16" }, ["sb16"], []],
    // Of some there is nothing to see in QEMU's devices: that the guest starts with them is what is shown.
    ["acpi=0", { acpi: false }, ["piix3-ide"], ["PIIX4_PM"]],
    ["dm_restrict=1", { dm_restrict: true }, ["piix3-ide"], []],
    ["boot=dn and keymap=de", { boot: "dn", keymap: "de" }, ["piix3-ide"], []],
    ["xen_platform_pci=0", { xen_platform_pci: false }, ["piix3-ide"], ["xen-platform"]],
    ["usbversion=1", { usbversion: 1 }, ["piix3-usb-uhci"], []],
    ["usbversion=3", { usbversion: 3 }, ["nec-usb-xhci"], []],
    [
      "device_model_args_hvm",
      { device_model_args_hvm: ["-device", "e1000,id=mine"] },
      ['dev: e1000, id "mine"'],
      [],
    ],
    [
      "five emulated NICs, of which QEMU has boot ROMs for four",
      { vif: [0, 1, 2, 3, 4].map((n) => `mac=00:16:3e:00:02:0${n},bridge=xenbr0,model=e1000`) },
      ['mac = "00:16:3e:00:02:00"', 'mac = "00:16:3e:00:02:04"'],
      [],
    ],
    ["a PV NIC alone", { vif: ["type=vif,bridge=xenbr0"] }, ["piix3-ide"], ["e1000", "rtl8139"]],
  ])("%s", async (_, extra, there, absent) => {
    // Left paused: what QEMU has says enough.
    const guest = await createGuest(host, {
      name: "taken",
      images: { hda: 1 },
      createArgs: ["-p"],
      extra,
    });
    try {
      const { stdout: tree } = await host.run(["xl", "qemu-monitor-command", guest.name, "info qtree"]);
      for (const each of there) expect(tree).toContain(each);
      for (const each of absent) expect(tree).not.toContain(`dev: ${each}`);
    } finally {
      await guest.destroy();
    }
  });
});

describe("what the firmware boots", () => {
  it("a CD, by boot=d", async () => {
    await host.push(bootableCd("guest: a CD has booted"), "/root/boot.iso");
    const options = {
      name: "cd",
      disks: [{ vdev: "hdc", target: "/root/boot.iso", cdrom: true }],
      extra: { boot: "d" },
    };
    const guest = await createGuest(host, options);
    try {
      await guest.waitForSerial("guest: a CD has booted", 120);
    } finally {
      await guest.destroy();
    }
  });

  it.each(["e1000", "rtl8139"])("the network, by boot=n and the %s's own ROM", async (model) => {
    const nics = [{ mac: macOf(0), model, bridge: bridgeOf(0) }];
    const guest = await createGuest(host, { name: "net", nics, extra: { boot: "n" } });
    const asks = `ether src ${macOf(0)} and udp src port 68 and dst port 67`;
    try {
      await host.run(["tcpdump", "-i", bridgeOf(0), "-c", "1", "-n", asks], { timeout: 240 });
    } finally {
      await guest.destroy();
    }
  });
});

const vif = (words: string): XlGuest["extra"] => ({ vif: [`mac=00:16:3e:00:01:01,bridge=xenbr0,${words}`] });

describe("what cannot be had", () => {
  it.each<[string, XlGuest["extra"], Partial<XlGuest>, RegExp]>([
    ["soundhw=gus", { soundhw: "gus" }, {}, /no such sound device here; choose soundhw="ac97"/],
    ["vga=qxl", { vga: "qxl" }, { memory: 256 }, /QXL here.*; choose vga="stdvga"/],
    [
      "videoram=32",
      { videoram: 32, vga: "cirrus" },
      {},
      /a Cirrus card has 4, 8, 16 MB; choose videoram=8 or 16/,
    ],
    [
      "videoram=24",
      { videoram: 24, vga: "stdvga" },
      {},
      /a stdvga has a power of two of MB, and not 24; choose videoram=16 or 32/,
    ],
    [
      "usbdevice=host:1.2",
      { usb: true, usbdevice: "host:1.2" },
      {},
      /usbdevice= takes tablet, mouse, keyboard/,
    ],
    ["model=ne2k_pci", vif("model=ne2k_pci"), {}, /no such network interface here; choose model=e1000/],
    [
      "kernel=",
      { kernel: "/root/stubdom-lab/stubdom-linux-kernel" },
      {},
      /direct kernel boot reads a file of dom0/,
    ],
    ["gfx_passthru=", { gfx_passthru: "igd" }, {}, /the host bridge.*; take gfx_passthru= out/],
  ])("%s fails early, with what to change", async (what, extra, options, expected) => {
    const log = await refused(host, what.replace(/\W.*/, ""), extra, options);
    expect(log).toMatch(expected);
    // Early: it is said within seconds of the stub domain's start.
    const [, seconds] = /\[ *([\d.]+)\] error /.exec(log) ?? [];
    expect(Number(seconds)).toBeLessThan(15);
  });
});
