/**
 * What the guest has written and flushed is in dom0's file when the stub domain dies the next instant, although the
 * stub domain has a page cache in between, and when the whole host loses its power.
 */

import { createHash } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { createGuest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { askGuest, randomFile, rounds } from "./support.ts";

const times = rounds(1, 20);
const flushed = 1 << 20;

let host: LabHost | undefined;

afterAll(async () => {
  await host?.stop();
});

/** As `yes TEXT | head -c` of the test guest's job makes it. */
function hashOf(text: string): string {
  const line = `${text}\n`;
  const bytes = line.repeat(Math.ceil(flushed / line.length)).slice(0, flushed);
  return createHash("sha256").update(bytes).digest("hex");
}

describe("the stub domain's end", () => {
  it(
    `leaves what was flushed in dom0's file, ${times} times of ${times}, and what was not in nobody's`,
    async () => {
      host = await LabHost.start({ dom0: "trixie" });
      const since: number[] = [];
      for (let round = 1; round <= times; round++) {
        const text = `round${round}`;
        const name = `flush${round}`;
        // Both backends: dom0's kernel, and its QEMU.
        const backend = round % 2 === 0 ? "qdisk" : "phy";
        const file = `/root/${name}/scratch.img`;
        await host.run(`mkdir -p /root/${name} && truncate -s 4M ${file}`);
        const guest = await createGuest(host, {
          name,
          images: { hda: await guestDisk({ jobs: [`flush:sdb:${text}`], cmdline: "quiet" }) },
          disks: [{ vdev: "hdb", target: file, backend }],
          extra: { hdtype: "ahci", vga: "none" },
        });
        let said = 0;
        await guest.waitForSerial(`guest: flushed sdb ${hashOf(text)}`, 600);
        if (round === times) {
          // That the page cache is there, and the flush is what counts: this was written, and is lost.
          await guest.waitForSerial("guest: ready", 60);
          const unflushed =
            "yes lost | head -c 65536 > /tmp/lost; dd if=/tmp/lost of=/dev/sdb seek=48 bs=64k";
          await askGuest(guest, `${unflushed} oflag=direct; echo "guest:" written`, /guest: (written)/);
        }
        said = Date.now();
        // libxl destroys the stub domain first.
        await guest.destroy();
        since.push(Date.now() - said);
        const { stdout } = await host.run(`head -c ${flushed} ${file} | sha256sum; grep -c lost ${file}`, {
          accept: "any",
        });
        expect(stdout.split(" ")[0], `round ${round}, ${backend}`).toBe(hashOf(text));
        if (round === times) expect(stdout.trim().split("\n").at(-1)).toBe("0");
        await host.run(["rm", "-rf", `/root/${name}`]);
      }
      console.log(`${times} rounds; xl destroy took ${Math.min(...since)} to ${Math.max(...since)} ms`);
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
      const drive = ["-drive", `file=${disk},format=raw,if=virtio,cache=writeback`];
      host = await LabHost.start({ dom0: "trixie", qemuArgs: drive });
      await host.run("mkfs.ext4 -q /dev/vdb && mkdir -p /mnt/disk && mount /dev/vdb /mnt/disk");
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
      const written: Record<string, string> = {};
      for (const disk of ["sdb", "sdc"]) {
        written[disk] = await askGuest(guest, `writedisk ${disk} 1024`, /guest: written \S+ (\S+)/);
      }
      await host.stop();
      host = await LabHost.start({ dom0: "trixie", qemuArgs: drive });
      await host.run("mkdir -p /mnt/disk && mount /dev/vdb /mnt/disk");
      await host.run(`qemu-img convert -O raw ${files.qdisk} /root/qdisk.img`);
      for (const [disk, file] of [
        ["sdb", files.phy],
        ["sdc", "/root/qdisk.img"],
      ] as const) {
        const { stdout } = await host.run(`head -c ${flushed} ${file} | sha256sum`);
        expect(stdout.split(" ")[0], disk).toBe(written[disk]);
      }
      expect((await host.run(["qemu-img", "check", files.qdisk])).stdout).toContain("No errors");
    } finally {
      await host?.stop();
      rmSync(directory, { recursive: true });
    }
  }, 1800_000);
});
