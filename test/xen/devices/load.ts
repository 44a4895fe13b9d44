/** Everything at once for a while, after which process 1 of the stub domain is as big as before. */

import { expect, it } from "vitest";
import type { Guest } from "../../../scripts/lab/guest.ts";
import { askGuest, inStubdom, mostResident, randomFile, rounds } from "../support.ts";
import type { CdDrive } from "./cd.ts";

/** A viewer, in dom0. */
const watcher = "/root/watch.py";

interface Size {
  /** KiB. */
  readonly resident: number;
  /** Of these, memory of its own: what it has reserved (VmData) never grows, see bundler/native/heap.c. */
  readonly heap: number;
  readonly descriptors: number;
}

/** Of the stub domain's process 1. */
async function sizeOf(guest: Guest): Promise<Size> {
  const said = await inStubdom(guest, "cat /proc/1/status; echo descriptors $(ls /proc/1/fd | wc -l)");
  const number = (name: RegExp) =>
    Number(new RegExp(`${name.source}\\s+(\\d+)`).exec(said)?.[1] ?? Number.NaN);
  return { resident: number(/VmRSS:/), heap: number(/RssAnon:/), descriptors: number(/descriptors/) };
}

export interface LoadOptions {
  readonly drive: CdDrive;
  /** The guest's name of a disk that may be overwritten. */
  readonly scratch: string;
  /** The guest's address and dom0's, of each NIC. */
  readonly networks: readonly { readonly own: string; readonly dom0: string }[];
}

/** The guest's debug shell must be on. */
export function loadTests(guestOf: () => Guest, { drive, scratch, networks }: LoadOptions): void {
  const seconds = rounds(60, 15 * 60);

  it(
    `${seconds} s of disks, network, CDs, screen, serial port and QMP at once leave process 1 as it was`,
    async () => {
      const guest = guestOf();
      const { host, name } = guest;
      await Promise.all([0, 1].map((n) => randomFile(host, `/root/load/${n}.iso`, 64 << 10)));
      const jobs = [
        `while :; do writedisk ${scratch} 128; sumdisk ${scratch}; done`,
        // What they have done is counted where it costs no byte of the serial port.
        ...networks.map(
          ({ dom0 }) => `while :; do ping -c 20 -i 0.2 ${dom0} > /dev/null && echo >> /tmp/pings; done`,
        ),
        `while :; do dd if=/dev/${drive.linux} of=/dev/null 2> /dev/null; usleep 300000; done`,
        "while :; do date > /dev/tty0; sleep 1; done",
      ];
      const from = guest.serialLines.length;
      guest.type(`${jobs.map((job) => `(${job}) &`).join("\n")}\n`);
      const end = Date.now() + seconds * 1000;
      const done = { cds: 0, locked: 0, commands: 0, refused: 0, pings: 0, updates: 0 };
      const changing = async (): Promise<void> => {
        while (Date.now() < end) {
          const insert = ["xl", "cd-insert", name, drive.vdev, `/root/load/${done.cds % 2}.iso`];
          const { status, stderr } = await host.run(insert, { accept: [0, 1], timeout: 90 });
          // While the guest reads a CD its driver holds the tray shut, and QEMU says so, in dom0 too.
          if (status === 0) done.cds++;
          else if (stderr.includes("is locked")) done.locked++;
          else throw new Error(`${insert.join(" ")}: ${stderr}`);
        }
      };
      const asking = async (): Promise<void> => {
        while (Date.now() < end) {
          // Each is a session of its own, and there is one at a time: a CD's change may keep it out for too long.
          const command = ["xl", "qemu-monitor-command", name, "info status"];
          const { status } = await host.run(command, { accept: "any", timeout: 90 });
          if (status === 0) done.commands++;
          else done.refused++;
        }
      };
      const pinging = async (own: string): Promise<void> => {
        while (Date.now() < end) {
          const { stdout } = await host.run(`ping -c 10 -i 0.2 -s 1000 -W 20 ${own}`, {
            accept: "any",
            timeout: 90,
          });
          done.pings += Number(/ (\d+) received/.exec(stdout)?.[1] ?? 0);
        }
      };
      const watching = async (): Promise<void> => {
        while (Date.now() < end) {
          const { stdout } = await host.run(["python3", watcher, "5900", "rate", "20"], { timeout: 120 });
          done.updates += (JSON.parse(stdout) as { updates: number }).updates;
        }
      };
      // What grows in the first quarter may be what it needs; what grows after it is a leak.
      const sized = new Promise<Size>((resolve, reject) => {
        setTimeout(() => sizeOf(guest).then(resolve, reject), seconds * 250);
      });
      await host.push("scripts/bench/dom0/watch.py", watcher);
      await Promise.all([
        changing(),
        asking(),
        watching(),
        ...networks.map(({ own }) => pinging(own)),
        sized,
      ]);
      guest.type("kill $(jobs -p)\n");
      const said = (what: RegExp) => guest.serialLines.slice(from).filter((line) => what.test(line)).length;
      const count = `echo "guest:" pinged $(cat /tmp/pings | wc -l)`;
      const own = {
        pings: Number(await askGuest(guest, count, /guest: pinged (\d+)/)),
        written: said(/guest: written \S+ [0-9a-f]{64}/),
        read: said(/guest: sum \S+ [0-9a-f]{64}/),
      };
      const [before, after] = [await sized, await sizeOf(guest)];
      console.log(
        `${seconds} s: ${JSON.stringify(done)}, the guest itself ${JSON.stringify(own)}; process 1 ${JSON.stringify(before)} -> ${JSON.stringify(after)}`,
      );
      expect(done.cds).toBeGreaterThan(seconds / 60);
      expect(done.commands).toBeGreaterThan(seconds / 60);
      expect(done.commands).toBeGreaterThan(done.refused);
      expect(done.pings).toBeGreaterThan(seconds / 4);
      expect(done.updates).toBeGreaterThan(seconds / 10);
      for (const times of Object.values(own))
        expect(times, JSON.stringify(own)).toBeGreaterThan(seconds / 60);
      expect(after.descriptors).toBeLessThanOrEqual(before.descriptors);
      expect(after.resident).toBeLessThanOrEqual(mostResident.ever);
      // Pages, not bytes: a collection of garbage more or less.
      expect(after.resident).toBeLessThanOrEqual(before.resident + 128);
      expect(after.heap).toBeLessThanOrEqual(before.heap + 128);
      expect(await askGuest(guest, `sumdisk ${scratch}`, /guest: sum \S+ (\S+)/)).toMatch(/^[0-9a-f]{64}$/);
    },
    (seconds + 600) * 1000,
  );
}
