/**
 * How fast state gets out of the stub domain, side by side in one run: over the state disk, all the way to
 * dom0's file; over console 1; and, to the same virtual disk, framed and checked beside `dd` of the same bytes.
 * The streams are made up, since QEMU's own state is small.
 *
 * Written, but never run on a host, which is why its name keeps it out of the suite.
 */

import { afterAll, beforeAll, expect, it } from "vitest";
import { createGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { installHelper, startHelper } from "../../scripts/lab/helper.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { inStubdom, withShell } from "./support.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const runs = 3;
/** At the console's pace 64 MiB take many minutes: for whoever wants to know. */
const consoleSizes = [64 * KIB, 4 * MIB, ...(process.env.LINUX_STUBDOM_CONSOLE_64M ? [64 * MIB] : [])];
let host: LabHost;
let guest: Guest;

beforeAll(async () => {
  host = await LabHost.start({ dom0: "trixie", dom0Memory: 1536 });
  await installHelper(host);
  await startHelper(host);
  guest = await createGuest(host, {
    name: "speed",
    images: { hda: await guestDisk() },
    stubdom: withShell,
    timeout: 300,
  });
  await guest.waitForSerial("guest: up", 300);
});

afterAll(async () => {
  await host?.stop();
});

/** Seconds that `stubdom measure` needs for so many bytes to `target`: the least of some runs. */
async function measure(target: string, bytes: number, times = runs): Promise<number> {
  const blocks = bytes / (64 * KIB);
  const one = `dd if=/dev/zero bs=64k count=${blocks} 2>/dev/null | stubdom measure --json ${target}`;
  const text = await inStubdom(guest, `for i in ${numbers(times)}; do ${one}; done`, 1800);
  return least(text, bytes);
}

/** The least `seconds` among lines of JSON. */
function least(text: string, bytes: number): number {
  const found = [...text.matchAll(/\{"bytes":(\d+),"seconds":"([\d.]+)"/g)];
  expect(found.length, text).toBeGreaterThan(0);
  for (const [, written] of found) expect(Number(written)).toBe(bytes);
  return Math.min(...found.map(([, , seconds]) => Number(seconds)));
}

/** The same vbd, held for both: what our framing and checking costs. */
async function besideDd(bytes: number): Promise<{ ours: number; dd: number }> {
  const block = Math.min(bytes, 256 * KIB);
  const script = `
    mkfifo /tmp/hold
    stubdom measure --bytes ${2 * bytes} hold < /tmp/hold &
    exec 3> /tmp/hold
    t=0; until [ -b /dev/xvdzz ] || [ $t -gt 20 ]; do t=$((t + 1)); sleep 1; done
    for i in ${numbers(runs)}; do
      dd if=/dev/zero bs=64k count=${bytes / (64 * KIB)} 2>/dev/null | stubdom measure --json /dev/xvdzz
      read from _ < /proc/uptime
      dd if=/dev/zero of=/dev/xvdzz bs=${block} count=${bytes / block} oflag=direct conv=fsync 2>/dev/null || echo "DD FAILED"
      read to _ < /proc/uptime
      echo "dd $from $to"
    done
    exec 3>&-
    wait
    rm /tmp/hold`;
  const text = await inStubdom(guest, script, 900);
  expect(text).not.toContain("DD FAILED");
  const times = [...text.matchAll(/^dd ([\d.]+) ([\d.]+)/gm)].map(
    ([, from, to]) => Number(to) - Number(from),
  );
  expect(times.length, text).toBe(runs);
  return { ours: least(text, bytes), dd: Math.min(...times) };
}

/** The stub domain's shell has no `seq`. */
function numbers(count: number): string {
  return Array.from({ length: count }, (_, i) => i + 1).join(" ");
}

function rate(bytes: number, seconds: number): string {
  return `${seconds.toFixed(3)} s, ${(bytes / seconds / 1e6).toFixed(2)} MB/s`;
}

it.each(consoleSizes)(
  "%i bytes: the state disk against console 1",
  async (bytes) => {
    const disk = await measure("helper", bytes);
    // dom0's QEMU only appends to the file behind console 1: once for each size is enough of it.
    const console1 = await measure("console", bytes, 1);
    console.log(`${bytes} bytes: state disk ${rate(bytes, disk)}; console ${rate(bytes, console1)}`);
    expect(disk).toBeLessThan(console1);
    if (bytes >= 4 * MIB) expect(console1 / disk).toBeGreaterThanOrEqual(20);
  },
  2_400_000,
);

it.each([64 * KIB, 4 * MIB, 64 * MIB])(
  "%i bytes: framed and checked against dd",
  async (bytes) => {
    const { ours, dd } = await besideDd(bytes);
    console.log(
      `${bytes} bytes: state disk ${rate(bytes, ours)}; dd ${rate(bytes, dd)}: ${(dd / ours).toFixed(2)} of it`,
    );
    if (bytes === 64 * MIB) expect(dd / ours).toBeGreaterThanOrEqual(0.8);
  },
  2_400_000,
);

it("64 MiB all the way to dom0's file, in the memory that there is", async () => {
  const seconds = await measure("helper", 64 * MIB, 1);
  console.log(`67108864 bytes: state disk, all the way ${rate(64 * MIB, seconds)}`);
  const status = await guest.agent();
  expect(status.phase).toBe("running");
}, 1_200_000);
