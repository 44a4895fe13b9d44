/**
 * Devices of the host in a guest whose QEMU runs in our stub domain: at `xl create`, attached and detached while
 * it runs, through reboots, and what is refused.
 *
 * The host has one processor. Its kernel in the stub domain asks dom0 some 300 times when it scans the bus, and libxl gives
 * it 10 s: on one processor Xen switches between the two by itself, on two each question waits for a thread of
 * the emulator to be scheduled by this machine, which took longer than 10 s when it was busy.
 */

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { guestProbe } from "../../scripts/bench/probe.ts";
import { probeLine, probes } from "../../scripts/bench/readings.ts";
import { quantile } from "../../scripts/bench/statistics.ts";
import { createGuest, type Guest, type GuestOptions } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { installHelper, startHelper } from "../../scripts/lab/helper.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { CABLE, PASSTHROUGH, passthroughDevices } from "../../scripts/lab/machine.ts";
import type { XlPci } from "../../scripts/lab/xl-config.ts";

const MIB = 1024 * 1024;
const port = 7100;
/** First of the ports of the benchmark's peer. */
const peerPort = 7201;
const sent = "/root/sent";
const e1000: XlPci = { address: PASSTHROUGH.e1000 };
/** MSI-X has to be switched on by the stub domain: docs/passthrough.md. */
const nvme: XlPci = { address: PASSTHROUGH.nvme, permissive: true };

/** A device alone behind a bridge, which can be cut off there. */
const bridge = "0000:00:12.0";
const lonely: XlPci = { address: "0000:01:00.0" };
const behindBridge = [
  ...["-device", `pcie-root-port,id=lonely,chassis=1,slot=1,addr=${bridge.slice(8)}`],
  ...["-device", "qemu-xhci,bus=lonely"],
];

let host: LabHost;
let directory: string;
let guest: Guest | undefined;

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), "stubdom-passthrough-"));
  const image = join(directory, "nvme.img");
  writeFileSync(image, "");
  truncateSync(image, 256 * MIB);
  host = await LabHost.start({
    dom0: "trixie",
    vcpus: 1,
    qemuArgs: [...passthroughDevices(image), ...behindBridge],
  });
  await host.run("modprobe xen-pciback; modprobe virtio_net; sleep 1");
  // dom0's end of the cable, by its MAC: which ethN it is depends on what else there is.
  await host.run(`for path in /sys/class/net/*; do
    [ "$(cat $path/address)" = ${CABLE.dom0} ] && ip addr add 10.8.0.1/24 dev \${path##*/} && ip link set \${path##*/} up
  done; ip addr | grep -q 10.8.0.1`);
  await host.run(`head -c ${100 * MIB} /dev/urandom > ${sent}`);
  await host.run(
    `setsid socat -U TCP-LISTEN:${port},reuseaddr,fork OPEN:${sent},rdonly >/dev/null 2>&1 </dev/null &`,
  );
  await host.push("scripts/bench/dom0/peer.py", "/root/peer.py");
  await host.run(`setsid python3 /root/peer.py ${peerPort} ${20 * MIB} >/dev/null 2>&1 </dev/null &`);
  // libxl finds no device of a guest with a stub domain by itself: agent/dom0/pci-list.ts.
  await installHelper(host);
  await startHelper(host);
  for (const address of Object.values(PASSTHROUGH)) await host.run(["xl", "pci-assignable-add", address]);
});

afterAll(async () => {
  await host?.stop();
  rmSync(directory, { recursive: true, force: true });
});

afterEach(async () => {
  await guest?.destroy();
  guest = undefined;
  await expectAssignable();
});

/** Both devices are back in dom0's hands: reset, assignable, and nothing of the last guest is left in xenstore. */
async function expectAssignable(): Promise<void> {
  await host.run(
    "for i in $(seq 50); do xl list | grep -q -- -dm || exit 0; sleep 0.2; done; xl list; exit 1",
  );
  const { stdout } = await host.run("xl pci-assignable-list");
  expect(stdout.trim().split(/\s+/).sort()).toEqual(Object.values(PASSTHROUGH).sort());
  expect((await host.run("xenstore-ls -f | grep -c backend/pci || true")).stdout.trim()).toBe("0");
}

async function boot(jobs: readonly string[], options: Partial<GuestOptions> = {}): Promise<Guest> {
  guest = await createGuest(host, {
    name: "passed",
    images: { hda: await guestDisk({ jobs, cmdline: "quiet" }) },
    memory: 96,
    timeout: 240,
    onSerial: (line) => process.env.LAB_SERIAL && console.log(line),
    ...options,
    extra: { hdtype: "ahci", ...options.extra },
  });
  return guest;
}

const network = `fetch:eth0:10.8.0.2/24:10.8.0.1:${port}`;

/** The guest got all of what dom0 sent, unchanged. */
async function expectFetched(from: Guest, seconds = 600): Promise<void> {
  const sum = (await host.run(["sha256sum", sent])).stdout.slice(0, 64);
  expect(await from.waitForSerial("guest: fetched eth0", seconds)).toContain(`${100 * MIB} ${sum}`);
}

/** So many interrupts at least. */
async function expectInterrupts(from: Guest, name: string, least: number): Promise<void> {
  const line = await from.waitForSerial(`guest: irq ${name} `, 60);
  expect(Number(line.split(" ").at(-1))).toBeGreaterThanOrEqual(least);
}

describe("devices that a guest is created with", () => {
  it("an e1000 and an NVMe disk at once: found by their drivers, 100 MB each, interrupts", async () => {
    const both = await boot(["pci", network, "irq:eth0", "move:nvme0n1:100", "irq:nvme0"], {
      pci: [e1000, nvme],
    });
    await both.waitForSerial(/guest: pci \S+ 8086:100e e1000/, 400);
    await both.waitForSerial(/guest: pci \S+ 1b36:0010 nvme/, 30);
    await expectFetched(both);
    await expectInterrupts(both, "eth0", 1000);
    expect(await both.waitForSerial("guest: moved nvme0n1 100", 900)).toMatch(/ ok$/);
    await expectInterrupts(both, "nvme0", 100);
    const log = await both.qemuDmLog();
    for (const { address } of [e1000, nvme]) {
      expect(log).toMatch(new RegExp(`PCI device ${address} of the host, 0000:00:0\\d\\.0 here: .* answers`));
    }
    expect(log).not.toMatch(/ error |allow_interrupt_control/);
    // libxl's first try of each succeeded.
    expect((await host.run("cat /var/log/xen/xl-passed.log", { accept: "any" })).stdout).not.toContain(
      "Retrying",
    );
  });

  it("the log says why an NVMe disk without permissive gets no interrupts by message", async () => {
    const shy = await boot(["pci"], { pci: [{ address: nvme.address }] });
    await shy.waitForSerial("guest: up", 400);
    expect(await shy.qemuDmLog()).toMatch(
      new RegExp(`${nvme.address} of the host has .*MSI-X, .*permissive=1`),
    );
  });

  const boots = 1 + 3;
  it(`reboots with the device, ${boots - 1} times`, async () => {
    const again = await boot(["pci", `reboot:${boots}`, "nic:10.8.0.2/24", "pings:5:10.8.0.1", "irq:eth0"], {
      pci: [e1000],
    });
    for (let round = 1; round <= boots; round++) {
      await again.waitForSerial(`guest: boots ${round}`, 500);
      const from = again.serialLines.findIndex((line) => line.includes(`guest: boots ${round}`));
      await again.waitForSerial(/guest: pci \S+ 8086:100e e1000/, 60, from);
    }
    // 100 MB take minutes here; that is for one test.
    expect(await again.waitForSerial("guest: pings 10.8.0.1", 120)).toMatch(/ [1-5]$/);
    await expectInterrupts(again, "eth0", 5);
  });
});

describe("beside QEMU in dom0, with the same device", () => {
  it("throughput and round trips through the e1000, as ratios", async () => {
    const jobs = ["nic:10.8.0.2/24", `probe:tcp:tcp-receive:10.8.0.1:${peerPort + 1}`];
    jobs.push(`probe:echo:udp-echo:10.8.0.1:${peerPort + 3}:500:64`);
    const disk = await guestDisk({
      jobs,
      cmdline: "quiet",
      files: { probe: new Uint8Array(await guestProbe()) },
    });
    const measure = async (stubdom: boolean): Promise<{ rate: number; trip: number }> => {
      const measured = await boot([], { pci: [e1000], stubdom, images: { hda: disk } });
      await measured.waitForSerial("guest: ready", 900);
      const said = probes(measured.serialLines);
      const [tcp, echo] = [probeLine(said.get("tcp") ?? ""), probeLine(said.get("echo") ?? "")];
      await measured.destroy();
      await expectAssignable();
      return { rate: (tcp.bytes ?? 0) / ((tcp.ns ?? 1) / 1e9), trip: (echo.p50 ?? 0) / 1000 };
    };
    // In turn, so that a machine that becomes slower does so for both.
    const ratios: { rate: number; trip: number }[] = [];
    for (let round = 1; round <= 3; round++) {
      const [dom0, ours] = [await measure(false), await measure(true)];
      ratios.push({ rate: ours.rate / dom0.rate, trip: ours.trip / dom0.trip });
      console.log(
        `e1000 passed through, dom0 and stub domain: ${dom0.rate.toFixed(0)} and ${ours.rate.toFixed(0)} bytes/s, ` +
          `round trip ${dom0.trip.toFixed(0)} and ${ours.trip.toFixed(0)} us`,
      );
    }
    const median = (of: "rate" | "trip") =>
      quantile(
        ratios.map((each) => each[of]),
        0.5,
      );
    console.log(
      `median ratios: throughput ${median("rate").toFixed(2)}, round trip ${median("trip").toFixed(2)}`,
    );
    // Neither data nor interrupts pass through QEMU: the rest is noise.
    expect(median("rate")).toBeGreaterThan(0.5);
    expect(median("trip")).toBeLessThan(2);
  });
});

describe("a guest that runs", () => {
  const attachments = 10;
  it(`gets a device and loses it, ${attachments} times`, async () => {
    // Xen must know at the guest's creation that devices may come, with QEMU in dom0 as well.
    const running = await boot(["beat"], { extra: { passthrough: "enabled" } });
    await running.waitForSerial("guest: ready", 500);
    const from = running.serialLines.length;
    for (let round = 1; round <= attachments; round++) {
      await host.run(["xl", "pci-attach", "passed", e1000.address], { timeout: 60 });
      running.type(`until [ -e /sys/class/net/eth0 ]; do usleep 100000; done; echo "got" ${round}\n`);
      await running.waitForSerial(`got ${round}`, 60, from);
      await host.run(["xl", "pci-detach", "passed", e1000.address], { timeout: 60 });
      running.type(`while [ -e /sys/class/net/eth0 ]; do usleep 100000; done; echo "lost" ${round}\n`);
      await running.waitForSerial(`lost ${round}`, 60, from);
      expect((await host.run("xl pci-list passed")).stdout).not.toContain(e1000.address);
      // libxl has let go of it everywhere.
      expect((await host.run("xl pci-assignable-list")).stdout).toContain(e1000.address);
    }
    expect(await running.agent()).toMatchObject({ phase: "running" });
  });

  it("is not saved while it has one, and goes on; without it it is", async () => {
    const kept = await boot(["beat"], { pci: [e1000] });
    await kept.waitForSerial("guest: ready", 500);
    const failed = await host.run("xl save passed /root/never", { accept: "any", timeout: 300 });
    expect(failed.status).not.toBe(0);
    expect(await kept.qemuDmLog()).toMatch(/save: failed: the guest has PCI device 0000:00:10\.0/);
    const from = kept.serialLines.length;
    await kept.waitForSerial("guest: beat", 60, from);
    expect((await host.run("ls /var/lib/xen")).stdout).not.toMatch(/qemu-resume/);
  });

  it("whose stub domain is destroyed while the device is busy leaves the device assignable", async () => {
    const busy = await boot([network], { pci: [e1000] });
    await busy.waitForSerial("guest: up", 500);
    await host.run("sleep 3");
    await host.run(["xl", "destroy", String(await busy.stubdomId())], { accept: "any" });
    await busy.destroy();
    await expectAssignable();
    const next = await boot([network], { pci: [e1000] });
    await expectFetched(next);
  });
});

describe("a device that is there no more", () => {
  /** A bridge that was told another bus's number passes nothing on: what is behind it answers 0xff from now on. */
  const secondaryBus = (number: number) =>
    host.run([
      "python3",
      "-c",
      `f = open("/sys/bus/pci/devices/${bridge}/config", "r+b", buffering=0); f.seek(0x19); f.write(bytes([${number}]))`,
    ]);
  const vendor = async () => {
    const { stdout } = await host.run(`od -An -tx2 -N2 /sys/bus/pci/devices/${lonely.address}/config`);
    return stdout.trim();
  };

  beforeEach(async () => {
    await host.run(["xl", "pci-assignable-add", lonely.address]);
    expect(await vendor()).not.toBe("ffff");
  });

  afterEach(async () => {
    await secondaryBus(1);
    await guest?.destroy();
    guest = undefined;
    await host.run(
      "for i in $(seq 50); do xl list | grep -q -- -dm || exit 0; sleep 0.2; done; xl list; exit 1",
    );
    expect((await host.run("xl pci-assignable-list")).stdout).toContain(lonely.address);
    await host.run(["xl", "pci-assignable-remove", lonely.address]);
  });

  it("it answers 0xff: no guest, and the log names it in both spaces", async () => {
    await secondaryBus(0x7f);
    expect(await vendor()).toBe("ffff");
    const created = boot([], { pci: [lonely] });
    await expect(created).rejects.toThrow(
      /PCI device 0000:01:00\.0 of the host, 0000:00:\S+ here: our kernel does not show it after \d+ ms/,
    );
    expect((await host.run("xl list")).stdout).not.toContain("passed");
  });

  it("it answers 0xff at xl pci-attach: refused, and the guest goes on", async () => {
    const running = await boot(["beat"], { extra: { passthrough: "enabled" } });
    await running.waitForSerial("guest: beat", 500);
    await secondaryBus(0x7f);
    const attached = await host.run(["xl", "pci-attach", "passed", lonely.address], {
      accept: "any",
      timeout: 90,
    });
    expect(attached.status).not.toBe(0);
    expect(await running.qemuDmLog()).toMatch(
      /device_add: PCI device 0000:01:00\.0 of the host, 0000:00:\S+ here/,
    );
    await running.waitForSerial("guest: beat", 60, running.serialLines.length);
    expect(await running.agent()).toMatchObject({ phase: "running" });
  });

  it("it vanishes while a guest has it: the guest goes on, and the device can be taken away", async () => {
    const running = await boot(["beat"], { pci: [lonely] });
    await running.waitForSerial("guest: beat", 500);
    await secondaryBus(0x7f);
    await running.waitForSerial("guest: beat", 60, running.serialLines.length);
    await host.run(["xl", "pci-detach", "passed", lonely.address], { accept: "any", timeout: 120 });
    await running.waitForSerial("guest: beat", 60, running.serialLines.length);
    expect(await running.agent()).toMatchObject({ phase: "running" });
  });
});

describe("what is refused", () => {
  it.each([
    ["does not exist", "0000:00:1e.7"],
    ["is not assignable", "0000:00:00.0"],
  ])("a device that %s: no guest, nothing left", async (_, address) => {
    await expect(boot([], { pci: [{ address }] })).rejects.toThrow();
    expect((await host.run("xl list")).stdout).not.toContain("passed");
  });

  it("a device that another guest has", async () => {
    await boot(["beat"], { pci: [e1000] });
    const other = createGuest(host, { name: "other", images: { hda: 4 }, pci: [e1000] });
    await expect(other).rejects.toThrow();
    expect((await host.run("xl list")).stdout).not.toContain("other");
  });

  it("a device in device_model_args_hvm, which the stub domain never gets: named, and the end", async () => {
    const args = ["-device", `xen-pci-passthrough,hostaddr=${e1000.address}`];
    const created = boot([], { extra: { device_model_args_hvm: args } });
    await expect(created).rejects.toThrow(/PCI device 0000:00:10\.0 of the host, without an address here/);
  });
});
