/**
 * `xl migrate` between two emulated hosts: there and back, with unmodified xl and QEMU, over a private network
 * that joins the hosts' bridges. Both see the guest's disks.
 */

import { createSocket } from "node:dgram";
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createGuest, Guest, installStubdom } from "../../scripts/lab/guest.ts";
import { helperLog, installHelper, startHelper, stopHelper } from "../../scripts/lab/helper.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { expectNoLeaks, expectWorking, prepareNetwork, steadyClock, workingDisk } from "./save-support.ts";

const trips = 5;
const port = 7001;

interface Side {
  readonly name: string;
  readonly host: LabHost;
  readonly address: string;
}

const directory = mkdtempSync(join(tmpdir(), "stubdom-migrate-"));
/** All that run, also when one of them did not come up. */
const hosts: LabHost[] = [];
let sides: readonly Side[] = [];
let guest: Guest;
/** Where the guest is. */
let here: Side;
let there: Side;

beforeAll(async () => {
  const disks = { boot: join(directory, "boot.img"), data: join(directory, "data.img") };
  copyFileSync(await workingDisk(), disks.boot);
  writeFileSync(disks.data, Buffer.alloc(2 << 20));
  const ports = [await freePort(), await freePort()] as const;
  sides = await Promise.all([
    startSide({ name: "first", number: 1, ports, disks }),
    startSide({ name: "second", number: 3, ports: [ports[1], ports[0]], disks }),
  ]);
  const [first, second] = sides;
  if (first === undefined || second === undefined) throw new Error("two hosts were to be started");
  [here, there] = [first, second];
  await here.host.run(["ping", "-c", "3", "-W", "5", there.address]);
  guest = await createGuest(here.host, {
    name: "mover",
    disks: [
      { vdev: "hda", target: await diskOf(here, "boot"), backend: "phy" },
      { vdev: "hdb", target: await diskOf(here, "data"), backend: "phy" },
    ],
    nics: [{ mac: "00:16:3e:00:00:02", bridge: "xenbr0", model: "e1000" }],
    extra: { hdtype: "ahci", ...steadyClock },
    timeout: 300,
  });
  // xl takes the names of the disks along: they must be the same on both sides.
  for (const disk of ["boot", "data"]) expect(await diskOf(there, disk)).toBe(await diskOf(here, disk));
  await guest.waitForSerial("guest: script work 3", 900);
}, 1_200_000);

afterAll(async () => {
  await Promise.all(hosts.map((host) => host.stop()));
  rmSync(directory, { recursive: true });
});

/**
 * A disk of both machines. No copy of its contents may lie in either: dom0's block backend keeps none. In a slot behind
 * that of dom0's own disk, which Linux must find first.
 */
function sharedDisk(slot: number, serial: string, file: string): string[] {
  return [
    ...["-drive", `file=${file},format=raw,if=none,id=${serial},cache=writethrough,file.locking=off`],
    ...["-device", `virtio-blk-pci,drive=${serial},serial=${serial},share-rw=on,addr=${slot.toString(16)}`],
  ];
}

async function diskOf({ host }: Side, serial: string): Promise<string> {
  const { stdout } = await host.run(`basename "$(dirname "$(grep -lx ${serial} /sys/block/vd*/serial)")"`);
  return `/dev/${stdout.trim()}`;
}

/** A host, joined with the other one by a cable: what it sends to the other's port, and gets at its own. */
async function startSide(side: {
  readonly name: string;
  /** The last byte of its addresses. */
  readonly number: number;
  readonly ports: readonly [own: number, other: number];
  readonly disks: Readonly<Record<string, string>>;
}): Promise<Side> {
  const { name, number, ports, disks } = side;
  const mac = `52:54:00:00:00:0${number}`;
  const [local, remote] = ports.map((port) => `type=inet,host=127.0.0.1,port=${port}`.split(","));
  const ends = [
    ...(local ?? []).map((word) => `local.${word}`),
    ...(remote ?? []).map((word) => `remote.${word}`),
  ];
  const host = await LabHost.start({
    dom0: "trixie",
    memory: 4096,
    qemuArgs: [
      ...[
        "-netdev",
        ["dgram", "id=link", ...ends].join(","),
        "-device",
        `virtio-net-pci,netdev=link,mac=${mac}`,
      ],
      ...Object.entries(disks).flatMap(([serial, file], index) => sharedDisk(0x18 + index, serial, file)),
    ],
  });
  hosts.push(host);
  const address = `10.9.0.${number}`;
  await prepareNetwork(host, address);
  // udev gives the NIC another name as soon as it sees it.
  await host.run(
    `modprobe virtio_net; t=0
     until nic=$(grep -l ${mac} /sys/class/net/*/address) && ip link set "$(basename "$(dirname "$nic")")" master xenbr0 up
     do t=$((t + 1)); [ $t -lt 50 ] || exit 1; sleep 0.2; done`,
  );
  await installStubdom(host);
  await installHelper(host);
  await startHelper(host);
  await host.run(
    `setsid socat -t 5 TCP-LISTEN:${port},reuseaddr,fork EXEC:"xl migrate-receive" >/var/log/xen/migrate-receive.log 2>&1 </dev/null &`,
  );
  return { name, host, address };
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    socket.on("error", reject);
    socket.bind(0, "127.0.0.1", () => {
      const { port } = socket.address();
      socket.close(() => resolve(port));
    });
  });
}

/**
 * `xl migrate`, with a plain connection in place of ssh: an empty -s makes the "host" a command. A receiver that fails
 * ends its side; socat tells the sender only once -t has passed.
 */
async function migrate(): Promise<string> {
  const way = `exec socat -t 5 - TCP:${there.address}:${port}`;
  const { stdout, stderr } = await here.host.run(["xl", "migrate", "-s", "", "mover", way], { timeout: 600 });
  return stdout + stderr;
}

/** The log of a stub domain that received: xl names the guest otherwise until it runs. */
async function receivedLog(side: Side): Promise<string> {
  const path = "/var/log/xen/qemu-dm-mover--incoming.log";
  return (await side.host.run(["cat", path], { accept: "any" })).stdout;
}

it(`${trips} times there and back: nothing is lost`, async () => {
  for (let i = 1; i <= 2 * trips; i++) {
    const began = Date.now();
    await migrate();
    console.log(`migration ${i} to the ${there.name} host: ${((Date.now() - began) / 1000).toFixed(1)} s`);
    guest.leave();
    [here, there] = [there, here];
    guest = new Guest(here.host, "mover", Date.now() - began, true);
    await expectWorking(guest, 180);
    expect(await receivedLog(here)).toMatch(/restore: \d+ bytes of device state from the state disk, whole/);
    expect((await there.host.run("xl list")).stdout).not.toContain("mover");
    for (const { host } of sides) await expectNoLeaks(host);
  }
}, 7_200_000);

it("the receiver's helper refuses for want of room: xl migrate fails, and the guest goes on where it was", async () => {
  await stopHelper(there.host);
  await startHelper(there.host, "--limit 32K");
  await expect(migrate()).rejects.toThrow(/exit status/);
  await expectWorking(guest, 180);
  expect((await there.host.run("xl list")).stdout).not.toContain("mover");
  await stopHelper(there.host);
  await startHelper(there.host);
  for (const { host } of sides) await expectNoLeaks(host);
}, 1_200_000);

it("neither helper's log holds an error", async () => {
  for (const { host } of sides) expect(await helperLog(host)).not.toMatch(/\] error/);
});
