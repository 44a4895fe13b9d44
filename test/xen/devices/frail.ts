/** A file system of dom0's over a device that can be told to fail. */

import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { logFile } from "../../../bundler/cache.ts";
import { run } from "../../../bundler/exec.ts";
import { labTools } from "../../../scripts/lab/tools.ts";
import type { XenHost } from "../../../scripts/lab/xen-host.ts";

/** Where it is in dom0. */
export const frailRoot = "/mnt/frail";

const image = "/root/frail.img";
const loop = "/dev/loop7";

export class FrailFiles {
  private constructor(
    private readonly host: XenHost,
    private readonly sectors: number,
  ) {}

  /** Makes and mounts it. Without a journal, which would fail before a file's flush does. */
  static async mount(host: XenHost, mebibytes: number): Promise<FrailFiles> {
    const directory = mkdtempSync(join(tmpdir(), "stubdom-frail-"));
    try {
      const disk = join(directory, "disk.img");
      writeFileSync(disk, Buffer.alloc(mebibytes << 20));
      const mkfs = (await labTools()).command("/usr/sbin/mkfs.ext4", "-q", "-F", "-O", "^has_journal", disk);
      await run(mkfs, { log: logFile("frail") });
      await host.push(disk, image);
    } finally {
      rmSync(directory, { recursive: true });
    }
    const frail = new FrailFiles(host, mebibytes * 2048);
    await host.run(
      `modprobe dm-mod && losetup ${loop} ${image} && dmsetup create frail --table "${frail.#table("well")}" &&
       mkdir ${frailRoot} && mount /dev/mapper/frail ${frailRoot}`,
    );
    return frail;
  }

  /** From now on the device is so; what dom0 has of it in memory stays. */
  async becomes(how: "well" | "broken"): Promise<void> {
    await this.host.run(
      `dmsetup suspend --nolockfs --noflush frail && dmsetup load frail --table "${this.#table(how)}" && dmsetup resume frail`,
    );
  }

  #table(how: "well" | "broken"): string {
    return `0 ${this.sectors} ${how === "well" ? `linear ${loop} 0` : "error"}`;
  }
}
