/**
 * What the guest has written and flushed is in dom0's file when the stub domain dies the next instant, although the
 * stub domain has a page cache in between, and when the whole host loses its power.
 */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { logFile } from "../../bundler/cache.ts";
import { run } from "../../bundler/exec.ts";
import { createGuest, Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { labTools } from "../../scripts/lab/tools.ts";
import type { XenHost } from "../../scripts/lab/xen-host.ts";
import { FrailFiles, frailRoot } from "./devices/frail.ts";
import { write } from "./devices/guests.ts";
import { askGuest, randomFile, spread, waitForLog } from "./support.ts";

const times = 20;
const flushed = 1 << 20;

let host: LabHost | undefined;

afterAll(async () => {
  await host?.stop();
});

/** The guest's disks and dom0's files behind them: served by dom0's kernel, and by its QEMU. */
const disks = { sdb: "/root/flush/phy.img", sdc: "/root/flush/qdisk.img" };

/** A guest whose sdb is a file that dom0's kernel serves, and whose sdc is one that dom0's QEMU serves. */
async function guestOf(on: XenHost, name: string, phy: string, qdisk: string): Promise<Guest> {
  const guest = await createGuest(on, {
    name,
    images: { hda: await guestDisk({ cmdline: "quiet" }) },
    disks: [
      { vdev: "hdb", target: phy, backend: "phy" },
      { vdev: "hdc", target: qdisk, backend: "qdisk" },
    ],
    extra: { hdtype: "ahci", vga: "none" },
  });
  await guest.waitForSerial("guest: ready", 600);
  return guest;
}

/** Writes and flushes MiB of random bytes on each disk: what they hash to. */
async function writeAll(guest: Guest): Promise<string[]> {
  const written: string[] = [];
  for (const disk of ["sdb", "sdc"]) {
    written.push(await askGuest(guest, `writedisk ${disk} 1024`, /guest: written \S+ (\S+)/));
  }
  for (const hash of written) expect(hash).toMatch(/^[0-9a-f]{64}$/);
  return written;
}

/** What the first MiB of each file hashes to. */
async function hashes(of: XenHost, files: readonly string[]): Promise<string[]> {
  const { stdout } = await of.run(
    `for file in ${files.join(" ")}; do head -c ${flushed} $file | sha256sum; done`,
  );
  return stdout.match(/[0-9a-f]{64}/g) ?? [];
}

describe("the stub domain's end", () => {
  it(
    `leaves what was flushed in dom0's files, ${times} times of ${times}, and what was not in none`,
    async () => {
      host = await LabHost.start({ saved: true });
      const files = Object.values(disks);
      await host.run(`mkdir -p /root/flush && truncate -s 4M ${files.join(" ")}`);
      let guest = await guestOf(host, "flush", disks.sdb, disks.sdc);
      // Restored for each round: it need not boot.
      await host.run(["xl", "save", guest.name, "/root/flush/state"], { timeout: 300 });
      guest.leave();
      const took: number[] = [];
      for (let round = 1; round <= times; round++) {
        await host.run(`truncate -s 0 ${files.join(" ")}; truncate -s 4M ${files.join(" ")}`);
        await host.run(["xl", "restore", "/root/flush/state"], { timeout: 300 });
        guest = new Guest(host, guest.name, 0, true);
        const written = await writeAll(guest);
        if (round === times) {
          // That the page cache is there, and the flush is what counts: this was written, and is lost.
          const unflushed =
            "yes lost | head -c 65536 > /tmp/lost; dd if=/tmp/lost of=/dev/sdb seek=48 bs=64k";
          await askGuest(guest, `${unflushed} oflag=direct; echo "guest:" unflushed`, /guest: (unflushed)/);
        }
        const said = Date.now();
        // libxl destroys the stub domain first.
        await guest.destroy();
        took.push(Date.now() - said);
        expect(await hashes(host, files), `round ${round}`).toEqual(written);
      }
      expect((await host.run(`grep -c lost ${disks.sdb}`, { accept: "any" })).stdout).toBe("0\n");
      console.log(`${times} rounds; xl destroy took ${spread(took)} ms`);
      await host.stop();
    },
    120 * 60_000,
  );
});

describe("the host's loss of power", () => {
  it("leaves what was flushed in dom0's files, served by its kernel and by its QEMU", async () => {
    const directory = mkdtempSync(join(tmpdir(), "stubdom-flush-"));
    try {
      // What dom0's disk has been given outlives the emulated host: it is in this machine's page cache.
      const disk = join(directory, "disk.img");
      writeFileSync(disk, Buffer.alloc(64 << 20));
      const tools = await labTools();
      await run(tools.command("/usr/sbin/mkfs.ext4", "-q", "-F", disk), { log: logFile("flush") });
      const drive = ["-drive", `file=${disk},format=raw,if=virtio,cache=writeback`];
      host = await LabHost.start({ dom0: "trixie", qemuArgs: drive });
      await host.run("mkdir -p /mnt/disk && mount /dev/vdb /mnt/disk");
      const files = { phy: "/mnt/disk/phy.img", qdisk: "/mnt/disk/qdisk.qcow2" };
      await randomFile(host, files.phy, 4 << 20);
      await host.run(`qemu-img create -q -f qcow2 ${files.qdisk} 4M && sync`);
      const guest = await createGuest(host, {
        name: "power",
        images: { hda: await guestDisk({ cmdline: "quiet" }) },
        disks: [
          { vdev: "hdb", target: files.phy, backend: "phy" },
          { vdev: "hdc", target: files.qdisk, format: "qcow2" },
        ],
        extra: { hdtype: "ahci", vga: "none" },
      });
      await guest.waitForSerial("guest: ready", 600);
      const written = await writeAll(guest);
      await host.stop();
      host = await LabHost.start({ dom0: "trixie", qemuArgs: drive });
      await host.run("mkdir -p /mnt/disk && mount /dev/vdb /mnt/disk");
      await host.run(`qemu-img convert -O raw ${files.qdisk} /root/qdisk.img`);
      expect(await hashes(host, [files.phy, "/root/qdisk.img"])).toEqual(written);
      expect((await host.run(["qemu-img", "check", files.qdisk])).stdout).toContain("No errors");
    } finally {
      await host?.stop();
      rmSync(directory, { recursive: true });
    }
  }, 1800_000);
});

describe("a flush that dom0 cannot carry out", () => {
  it("fails in the guest, and is told, where dom0 had taken the writes into its page cache; and so does each later one", async () => {
    host = await LabHost.start({ saved: true });
    const frail = await FrailFiles.mount(host, 16);
    const files = { phy: `${frailRoot}/phy.img`, qdisk: `${frailRoot}/qdisk.img` };
    for (const file of Object.values(files)) await randomFile(host, file, 4 << 20);
    await host.run("sync");
    const guest = await guestOf(host, "frail", files.phy, files.qdisk);
    await writeAll(guest);
    for (const [disk, vdev] of [
      ["sdb", "hdb"],
      ["sdc", "hdc"],
    ] as const) {
      await frail.becomes("broken");
      expect(await write(guest, disk, 1024), disk).toBe("failed");
      await waitForLog(guest, new RegExp(` error .*disk ${vdev}.*: a write failed`));
      // blkfront sends none any more.
      await frail.becomes("well");
      expect(await write(guest, disk, 1024), `${disk}, later`).toBe("failed");
    }
    expect(await write(guest, "sda")).toMatch(/^[0-9a-f]{64}$/);
    await guest.destroy();
  }, 1800_000);
});
