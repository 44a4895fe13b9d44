/**
 *
 * CDs that are changed under a running guest, by plain `xl cd-insert` and `xl cd-eject`.
 */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { askGuest, randomFile } from "./support.ts";

const rounds = 50;
/** Sectors of a CD have 2048 bytes; few of them, because the guest reads each image whole. */
const sizes = [64 << 10, 128 << 10, 96 << 10];
const images = sizes.map((_, n) => `/root/cd/${n}.iso`);

let host: LabHost;
let sums: string[];

beforeAll(async () => {
  host = await LabHost.start({ dom0: "trixie" });
  sums = [];
  for (const [n, size] of sizes.entries()) sums.push(await randomFile(host, `/root/cd/${n}.iso`, size));
});

afterAll(async () => {
  await host?.stop();
});

/** Seconds that it took. */
async function xl(...words: readonly string[]): Promise<number> {
  const began = Date.now();
  await host.run(["xl", ...words], { timeout: 90 });
  return (Date.now() - began) / 1000;
}

/** What the guest reads of its CD: hash and length, or `failed` without a medium. */
const medium = (guest: Guest) => askGuest(guest, "sumdisk sr0", /guest: sum sr0 (.*)/);

async function start(name: string, target: string | undefined, backend: "phy" | "qdisk"): Promise<Guest> {
  const guest = await createGuest(host, {
    name,
    images: { hda: await guestDisk({ cmdline: "quiet" }) },
    disks: [{ vdev: "hdc", cdrom: true, backend, ...(target !== undefined && { target }) }],
    extra: { hdtype: "ahci" },
  });
  await guest.waitForSerial("guest: ready", 400);
  return guest;
}

describe("a CD drive that dom0's kernel serves", () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await start("cd", images[0], "phy");
  });

  afterAll(async () => {
    await guest?.destroy();
  });

  it("has the medium that the guest was started with", async () => {
    expect(await medium(guest)).toBe(`${sums[0]} ${sizes[0]}`);
  });

  it(
    `changes it ${rounds} times, and is empty in between`,
    async () => {
      const before = Number((await guest.agent()).memory?.split(" ")[0]);
      const times: number[] = [];
      for (let round = 1; round <= rounds; round++) {
        times.push(await xl("cd-eject", guest.name, "hdc"));
        if (round % 10 === 1) expect(await medium(guest)).toBe("failed");
        const n = round % images.length;
        times.push(await xl("cd-insert", guest.name, "hdc", images[n] ?? ""));
        expect(await medium(guest), `round ${round}`).toBe(`${sums[n]} ${sizes[n]}`);
      }
      console.log(`xl cd-eject and cd-insert: ${Math.min(...times)} to ${Math.max(...times)} s`);
      const after = Number((await guest.agent()).memory?.split(" ")[0]);
      console.log(`stub domain: ${before} KiB available before, ${after} KiB after ${rounds} rounds`);
      expect(await guest.qemuDmLog()).not.toMatch(/ (error|warn) /);
      // dom0 has let go of every image but the last.
      const { stdout } = await host.run("losetup -a");
      expect(stdout.match(/\/root\/cd\//g)).toHaveLength(1);
    },
    60 * 60_000,
  );

  it("changes it without an eject", async () => {
    for (const n of [0, 1, 2]) {
      await xl("cd-insert", guest.name, "hdc", images[n] ?? "");
      expect(await medium(guest)).toBe(`${sums[n]} ${sizes[n]}`);
    }
  });

  it("can be ejected twice", async () => {
    await xl("cd-eject", guest.name, "hdc");
    await xl("cd-eject", guest.name, "hdc");
    expect(await medium(guest)).toBe("failed");
    await xl("cd-insert", guest.name, "hdc", images[0] ?? "");
    expect(await medium(guest)).toBe(`${sums[0]} ${sizes[0]}`);
  });
});

describe("a CD drive that was empty from the start", () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await start("empty", undefined, "phy");
  });

  afterAll(async () => {
    await guest?.destroy();
  });

  it("takes a medium and gives it back", async () => {
    expect(await medium(guest)).toBe("failed");
    await xl("cd-insert", guest.name, "hdc", images[1] ?? "");
    expect(await medium(guest)).toBe(`${sums[1]} ${sizes[1]}`);
    await xl("cd-eject", guest.name, "hdc");
    expect(await medium(guest)).toBe("failed");
  });
});

describe("a CD drive that dom0's QEMU serves, which is libxl's choice", () => {
  let guest: Guest;

  beforeAll(async () => {
    guest = await start("qdisk", images[0], "qdisk");
  });

  afterAll(async () => {
    await guest?.destroy();
  });

  it("changes its medium", async () => {
    expect(await medium(guest)).toBe(`${sums[0]} ${sizes[0]}`);
    for (const n of [1, 2]) {
      await xl("cd-insert", guest.name, "hdc", images[n] ?? "");
      expect(await medium(guest)).toBe(`${sums[n]} ${sizes[n]}`);
    }
  });

  // What comes after it is dom0's affair: its QEMU does not take up a drive without a file, so libxl waits in vain
  // for it to close when the next medium is to come.
  it("gives it back", async () => {
    await xl("cd-eject", guest.name, "hdc");
    expect(await medium(guest)).toBe("failed");
  });
});
