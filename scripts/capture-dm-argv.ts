/**
 * Writes `test/golden/dm-argv/*.json`: what unmodified `xl` of Debian asks of a Linux stub domain, for many
 * guest configurations. Regenerate with `npx tsx scripts/capture-dm-argv.ts [name ...]` and review by eye.
 *
 * libxl has written everything before it lets the stub domain run. The one here does nothing, for ever: it
 * changes nothing of what libxl wrote, and libxl waits for it until all is read.
 */

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { cpio, DIRECTORY, EXECUTABLE } from "../bundler/cpio.ts";
import { PROJECT } from "../bundler/paths.ts";
import { progress } from "../bundler/progress.ts";
import type { Dom0Release } from "./lab/dom0-image.ts";
import { Timeout } from "./lab/errors.ts";
import { LabHost } from "./lab/host.ts";
import { labTools } from "./lab/tools.ts";
import { parseXenstoreLs } from "./lab/xenstore-ls.ts";
import { type XlDisk, type XlGuest, type XlNic, xlConfig } from "./lab/xl-config.ts";

interface Scenario {
  readonly guest: Omit<XlGuest, "name" | "stubdom">;
  readonly releases: readonly Dom0Release[];
  /** Start from a saved guest, so that QEMU is told to read an incoming state. */
  readonly restore?: boolean;
}

const BOTH = ["trixie", "bookworm"] as const;
const TRIXIE = ["trixie"] as const;
const GOLDEN = join(import.meta.dirname, "../test/golden/dm-argv");

const disk = (vdev: string, more: Partial<XlDisk> = {}): XlDisk => ({
  vdev,
  target: `/root/${vdev}.img`,
  ...more,
});
const nic = (index: number, model?: string): XlNic => ({
  mac: `00:16:3e:00:00:0${index}`,
  bridge: "xenbr0",
  ...(model === undefined ? {} : { model }),
});

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  "no-disk": { guest: {}, releases: BOTH },
  "one-disk": { guest: { disks: [disk("hda")] }, releases: BOTH },
  "four-disks": {
    guest: { disks: ["hda", "hdb", "hdc", "hdd"].map((name) => disk(name)) },
    releases: TRIXIE,
  },
  "xvda-disk": { guest: { disks: [disk("xvda"), disk("xvdb", { readOnly: true })] }, releases: TRIXIE },
  cdrom: { guest: { disks: [disk("hda"), disk("hdc", { cdrom: true })] }, releases: BOTH },
  "empty-cdrom": { guest: { disks: [disk("hda"), { vdev: "hdc", cdrom: true }] }, releases: TRIXIE },
  scsi: { guest: { disks: [disk("sda"), disk("sdb")] }, releases: TRIXIE },
  "scsi-read-only": { guest: { disks: [disk("sda"), disk("sdb", { readOnly: true })] }, releases: TRIXIE },
  "more-disks": {
    guest: { disks: ["hda", "hdb", "hdc", "hdd", "xvde", "xvdf"].map((name) => disk(name)) },
    releases: TRIXIE,
  },
  ahci: { guest: { disks: [disk("hda"), disk("hdb")], extra: { hdtype: "ahci" } }, releases: TRIXIE },
  qcow2: {
    guest: { disks: [disk("hda", { format: "qcow2", target: "/root/hda.qcow2" })] },
    releases: TRIXIE,
  },
  "three-nics": {
    guest: { disks: [disk("hda")], nics: [nic(1), nic(2, "e1000"), nic(3, "rtl8139")] },
    releases: BOTH,
  },
  "five-nics": {
    guest: {
      disks: [disk("hda")],
      nics: [nic(1), nic(2, "e1000"), nic(3, "rtl8139"), nic(4), nic(5, "e1000")],
    },
    releases: TRIXIE,
  },
  "serial-list": {
    guest: { disks: [disk("hda")], serials: ["pty", "file:/root/second.log", "null"] },
    releases: BOTH,
  },
  "vnc-tablet": {
    guest: {
      disks: [disk("hda")],
      extra: { vnc: true, vnclisten: "127.0.0.1", usb: true, usbdevice: "tablet" },
    },
    releases: BOTH,
  },
  "vga-cirrus": { guest: { disks: [disk("hda")], extra: { vga: "cirrus", videoram: 8 } }, releases: TRIXIE },
  "vga-none": { guest: { disks: [disk("hda")], extra: { vga: "none" } }, releases: TRIXIE },
  "sound-tablet": {
    guest: {
      disks: [disk("hda")],
      extra: { vga: "stdvga", videoram: 32, usb: true, usbdevice: "tablet", soundhw: "hda" },
    },
    releases: TRIXIE,
  },
  // Not together with usbdevice, which xl refuses.
  usb3: { guest: { disks: [disk("hda")], extra: { usbversion: 3 } }, releases: TRIXIE },
  "two-vcpus-boot-order": {
    guest: {
      disks: [disk("hda"), disk("hdc", { cdrom: true })],
      vcpus: 2,
      extra: { boot: "dcn", acpi: false },
    },
    releases: TRIXIE,
  },
  "extra-arguments": {
    guest: {
      disks: [disk("hda")],
      extra: { device_model_args_hvm: ["-name", "a name with spaces, and a comma"], localtime: true },
    },
    releases: TRIXIE,
  },
  restore: { guest: { disks: [disk("hda")] }, releases: BOTH, restore: true },
};

/** Everything that differs from run to run for no reason that a reader could care about. */
const VOLATILE = /\/(ring-ref|port|event-channel|tty|vnc-port)$/;

async function main(): Promise<void> {
  const wanted = process.argv.slice(2);
  for (const name of wanted) {
    if (SCENARIOS[name] === undefined)
      throw new Error(`no scenario ${name}: ${Object.keys(SCENARIOS).join(" ")}`);
  }
  mkdirSync(GOLDEN, { recursive: true });
  for (const release of BOTH) {
    const scenarios = Object.entries(SCENARIOS).filter(
      ([name, { releases }]) => releases.includes(release) && (wanted.length === 0 || wanted.includes(name)),
    );
    if (scenarios.length === 0) continue;
    const host = await progress.step(`emulated host (${release})`, () => LabHost.start({ dom0: release }));
    try {
      await prepare(host);
      for (const [name, scenario] of scenarios) {
        await progress.step(`${release}: ${name}`, () => capture(host, name, scenario));
      }
    } finally {
      await host.stop();
    }
  }
}

async function prepare(host: LabHost): Promise<void> {
  const images = ["hda", "hdb", "hdc", "hdd", "sda", "sdb", "xvda", "xvdb", "xvde", "xvdf"];
  await host.run(
    [
      "cd /root",
      ...images.map((name) => `truncate -s 1M ${name}.img`),
      "qemu-img create -q -f qcow2 hda.qcow2 1M",
    ].join(" && "),
  );
  const tools = await labTools();
  const ramdisk = cpio([
    { path: "bin", mode: DIRECTORY },
    { path: "bin/busybox", mode: EXECUTABLE, data: readFileSync(tools.path("/usr/bin/busybox")) },
    {
      path: "init",
      mode: EXECUTABLE,
      data: Buffer.from("#!/bin/busybox sh\nexec /bin/busybox sleep 86400\n"),
    },
  ]);
  await host.push(ramdisk, "/root/ramdisk");
  await host.push(join(PROJECT, "dist/stubdom-linux-kernel"), "/root/kernel");
}

async function capture(host: LabHost, name: string, { guest, restore = false }: Scenario): Promise<void> {
  const config: XlGuest = { ...guest, name };
  const stubdom = { kernel: "/root/kernel", ramdisk: "/root/ramdisk", memory: 128 };
  const text = xlConfig({ ...config, stubdom });
  await host.push(Buffer.from(text), "/root/guest.cfg");
  let command = ["xl", "create", "/root/guest.cfg"];
  if (restore) {
    await host.push(Buffer.from(xlConfig(config)), "/root/plain.cfg");
    await host.run(
      "xl create -p /root/plain.cfg && xl save -p restore /root/saved; xl destroy restore || true",
    );
    command = ["xl", "restore", "/root/guest.cfg", "/root/saved"];
  }
  const creation = host.run(command, { accept: "any", timeout: 200 });
  creation.catch(() => {}); // looked at below, unless something else fails first
  const [target, stub] = await domains(host, name);
  const tree = async (path: string): Promise<Record<string, string>> => {
    const { stdout } = await host.run(["xenstore-ls", "-f", path], { accept: "any" });
    return parseXenstoreLs(stdout);
  };
  const vm = (await host.run(["xenstore-read", `/local/domain/${target}/vm`])).stdout.trim();
  const argv = await tree(`${vm}/image/dm-argv`);
  const home = `/local/domain/${stub}`;
  const xenstore: Record<string, string> = {
    [`${home}/target`]: (await tree(home))[`${home}/target`] ?? "",
    ...(await tree(`${home}/console`)),
    ...(await tree(`${home}/device`)),
  };
  await host.run(["xl", "destroy", name], { accept: "any" });
  await creation;
  const uuid = vm.replace("/vm/", "");
  const settle = (text: string): string =>
    text
      .replaceAll(uuid, "UUID")
      .replaceAll(`/domain/${stub}/`, "/domain/STUBDOM/")
      .replaceAll(`/${stub}/`, "/STUBDOM/")
      .replace(
        new RegExp(`\\b(xen-domid|vif|qemu-(?:save|resume)\\.|devices-state\\.)${target}\\b`, "g"),
        "$1TARGET",
      );
  const golden = {
    name,
    release: host.release,
    xl: text,
    target: Number(target),
    stubdom: Number(stub),
    argv: Object.keys(argv)
      .sort()
      .map((key) => argv[key]),
    xenstore: Object.fromEntries(
      Object.entries(xenstore)
        .filter(([path]) => !VOLATILE.test(path))
        .map(([path, content]) => [path.slice(home.length + 1), settle(content)]),
    ),
  };
  if (golden.argv.length === 0) throw new Error(`${name}: no arguments were written`);
  writeFileSync(join(GOLDEN, `${host.release}-${name}.json`), `${JSON.stringify(golden, null, 2)}\n`);
}

/** The two domain ids, once libxl lets the stub domain run: all is written then. */
async function domains(host: LabHost, name: string): Promise<[string, string]> {
  for (let tries = 0; tries < 120; tries++) {
    const { stdout } = await host.run(["xl", "list"], { accept: "any" });
    const rows = new Map(stdout.split("\n").map((line) => [line.split(/\s+/)[0], line.split(/\s+/)]));
    const [, target] = rows.get(name) ?? [];
    const [, stub, , , state] = rows.get(`${name}-dm`) ?? [];
    if (target && stub && state && !state.includes("p")) return [target, stub];
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
  throw new Timeout(`${name}: the stub domain was never unpaused`);
}

await main();
