/** CDs that are changed under a running guest, by plain `xl cd-insert` and `xl cd-eject`. */

import { beforeAll, expect, it } from "vitest";
import type { Guest } from "../../../scripts/lab/guest.ts";
import { helperLog } from "../../../scripts/lab/helper.ts";
import { askGuest, full, randomFile, rounds } from "../support.ts";

/** Sectors of a CD have 2048 bytes; few of them, because the guest reads each image whole. */
const sizes = [64 << 10, 128 << 10, 96 << 10];
const images = sizes.map((_, n) => `/root/cd/${n}.iso`);

/** A drive by its names in the configuration and in the guest, and by its number in xenstore. */
export interface CdDrive {
  readonly vdev: string;
  readonly devid: number;
  readonly linux: string;
}

/**
 * With the helper in dom0: it stands in for dom0's QEMU, which refuses empty drives.
 *
 * @param served drive with a medium, of dom0's kernel
 * @param empty drive that was empty from the start, of dom0's QEMU
 * @param qdisk drive with a medium, of dom0's QEMU, which is libxl's choice
 */
export function cdTests(guestOf: () => Guest, served: CdDrive, empty: CdDrive, qdisk: CdDrive): void {
  const times: number[] = [];
  let sums: string[];

  const xl = async (...words: readonly string[]): Promise<void> => {
    const began = Date.now();
    await guestOf().host.run(["xl", ...words], { timeout: 90 });
    times.push((Date.now() - began) / 1000);
  };
  const insert = (drive: CdDrive, n: number) => xl("cd-insert", guestOf().name, drive.vdev, images[n] ?? "");
  const eject = (drive: CdDrive) => xl("cd-eject", guestOf().name, drive.vdev);
  /** What the guest reads of its CD: hash and length, or `failed` without a medium. */
  const medium = (drive: CdDrive) =>
    askGuest(guestOf(), `sumdisk ${drive.linux}`, new RegExp(`guest: sum ${drive.linux} (.*)`));
  const image = (n: number) => `${sums[n]} ${sizes[n]}`;

  /** Images that programs of dom0 have open, by whom, once there are that few. */
  const held = async (most: number): Promise<string[]> => {
    const { stdout } = await guestOf().host.run(
      `list() { for link in $(find /proc/[0-9]*/fd -lname '/root/cd/*' 2> /dev/null); do
           process=\${link%/fd/*}; echo "$(cat $process/comm) \${process#/proc/} $(readlink $link)"
         done; }
       for i in $(seq 50); do [ $(list | wc -l) -le ${most} ] && break; sleep 0.2; done; list`,
      { accept: "any" },
    );
    return stdout.split("\n").filter(Boolean);
  };

  /** For whoever looks for the cause of one that is held: it was seen twice in dozens of runs. */
  const whoHolds = async (): Promise<string> => {
    const { host, name } = guestOf();
    const { stdout } = await host.run(
      `xenstore-ls -f /local/domain/0/backend/qdisk/$(xl domid ${name}-dm); tail -n 20 /var/log/xen/qemu-dm-${name}-dm.log`,
      { accept: "any" },
    );
    return `${await helperLog(host)}\n${stdout}`;
  };

  beforeAll(async () => {
    sums = [];
    for (const [n, size] of sizes.entries())
      sums.push(await randomFile(guestOf().host, `/root/cd/${n}.iso`, size));
  });

  it.each([
    ["kernel", served],
    ["QEMU", qdisk],
  ] as const)(
    "a CD of dom0's %s changes, and is empty in between",
    async (server, drive) => {
      const { host } = guestOf();
      times.length = 0;
      const promised = rounds(2, 50);
      for (let round = 1; round <= promised; round++) {
        await eject(drive);
        if (round % 10 === 1) expect(await medium(drive)).toBe("failed");
        const n = round % images.length;
        await insert(drive, n);
        expect(await medium(drive), `round ${round}`).toBe(image(n));
      }
      console.log(
        `${promised} rounds of xl cd-eject and cd-insert, dom0's ${server}: ${Math.min(...times)} to ${Math.max(...times)} s each`,
      );
      expect(await guestOf().qemuDmLog()).not.toMatch(/ error .*CD| warn (?!.* is not connected after ).*CD/);
      // dom0 has let go of every image but the last.
      if (drive === served)
        expect((await host.run("losetup -a")).stdout.match(/\/root\/cd\//g)).toHaveLength(1);
      else expect(await held(1)).toHaveLength(1);
    },
    60 * 60_000,
  );

  it.runIf(full)("a CD changes without an eject, and can be ejected twice", async () => {
    for (const n of [0, 2]) {
      await insert(served, n);
      expect(await medium(served)).toBe(image(n));
    }
    await eject(served);
    await eject(served);
    expect(await medium(served)).toBe("failed");
    await insert(served, 0);
    expect(await medium(served)).toBe(image(0));
  });

  it("a drive that was empty from the start takes a medium and gives it back", async () => {
    expect(await medium(empty)).toBe("failed");
    for (const n of [1, 2]) {
      await insert(empty, n);
      expect(await medium(empty)).toBe(image(n));
    }
    await eject(empty);
    expect(await medium(empty)).toBe("failed");
  });

  it("an image that was ejected is open in no program of dom0's", async () => {
    await eject(qdisk);
    const left = await held(0);
    expect(left, left.length === 0 ? "" : await whoHolds()).toEqual([]);
    expect(await medium(qdisk)).toBe("failed");
    expect(await helperLog(guestOf().host)).not.toMatch(/ error /);
  });

  it("a drive that dom0 detaches leaves no directory behind, before libxl takes it away: the next one is to be seen", async () => {
    const { host, name } = guestOf();
    const { stdout } = await host.run(
      `stubdom=$(xl domid ${name}-dm)
       frontend=/local/domain/$stubdom/device/vbd/${served.devid} backend=/local/domain/0/backend/vbd/$stubdom/${served.devid}
       xenstore-exists $frontend/state && xenstore-write $backend/online 0 $backend/state 5
       for i in $(seq 100); do xenstore-exists $frontend || break; sleep 0.2; done
       xenstore-exists $frontend && xenstore-ls $frontend; xenstore-read $backend/state`,
      { accept: "any" },
    );
    expect(stdout.trim()).toBe("6");
  });
}
