/**
 * How fast state gets out of the stub domain, side by side in one run: over the state disk and over console 1, both
 * attached; to the same virtual disk by `dd`; and over the state disk all the way, from the question for a disk to
 * dom0's file. The streams are made up, since QEMU's own state is small.
 */

import { afterAll, beforeAll, expect, it } from "vitest";
import { createGuest, type Guest } from "../../scripts/lab/guest.ts";
import { installHelper, startHelper } from "../../scripts/lab/helper.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { expectNoLeaks } from "./save-support.ts";
import { inStubdom, withShell } from "./support.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const runs = 3;
/** At the console's pace 64 MiB take many minutes: for whoever wants to know. */
const longestOnConsole = process.env.LINUX_STUBDOM_CONSOLE_64M ? 64 * MIB : 4 * MIB;
let host: LabHost;
let guest: Guest;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  await installHelper(host);
  await startHelper(host);
  // Never unpaused: its stub domain is all that is needed, and has the processor for itself as in a save.
  guest = await createGuest(host, {
    name: "speed",
    images: { hda: 1 },
    stubdom: withShell,
    createArgs: ["-p"],
    timeout: 300,
  });
});

afterAll(async () => {
  await host?.stop();
});

/** Seconds that `stubdom measure` needs for so many bytes to `target`: the least of some runs. */
async function measure(target: string, bytes: number, times = runs): Promise<number> {
  const one = `stubdom measure --json --bytes ${bytes} ${target} < /dev/zero`;
  const text = await inStubdom(guest, `for i in ${numbers(times)}; do ${one}; done`, 1800);
  return least(text, bytes);
}

/** The least `seconds` among lines of JSON. */
function least(text: string, bytes: number): number {
  return Math.min(...allSeconds(text, bytes));
}

function allSeconds(text: string, bytes: number): number[] {
  const found = [...text.matchAll(/\{"bytes":(\d+),"seconds":"([\d.]+)"/g)];
  expect(found.length, text).toBeGreaterThan(0);
  for (const [, written] of found) expect(Number(written)).toBe(bytes);
  return found.map(([, , seconds]) => Number(seconds));
}

/**
 * The same vbd, held for both: what our framing and checking costs. The clock that dd is timed by moves every 10 ms, so that
 * what is short is done several times in a row: the least of some runs' means.
 */
async function besideDd(bytes: number): Promise<{ ours: number; dd: number }> {
  const block = Math.min(bytes, 256 * KIB);
  const row = bytes > 4 * MIB ? 1 : 8;
  const inRow = numbers(row);
  const script = `
    mkfifo /tmp/hold
    stubdom measure --bytes ${2 * bytes} hold < /tmp/hold &
    exec 3> /tmp/hold
    t=0; until [ -b /dev/xvdzz ] || [ $t -gt 20 ]; do t=$((t + 1)); sleep 1; done
    for i in ${numbers(runs)}; do
      for j in ${inRow}; do stubdom measure --json --transient --bytes ${bytes} /dev/xvdzz < /dev/zero; done
      read from _ < /proc/uptime
      for j in ${inRow}; do
        dd if=/dev/zero of=/dev/xvdzz bs=${block} count=${bytes / block} oflag=direct 2>/dev/null || echo "DD FAILED"
      done
      read to _ < /proc/uptime
      echo "dd $from $to"
    done
    exec 3>&-
    wait
    rm /tmp/hold`;
  const text = await inStubdom(guest, script, 900);
  expect(text).not.toContain("DD FAILED");
  const times = [...text.matchAll(/^dd ([\d.]+) ([\d.]+)/gm)].map(
    ([, from, to]) => (Number(to) - Number(from)) / row,
  );
  expect(times.length, text).toBe(runs);
  const seconds = allSeconds(text, bytes);
  expect(seconds.length, text).toBe(runs * row);
  const means = times.map((_, run) => mean(seconds.slice(run * row, (run + 1) * row)));
  return { ours: Math.min(...means), dd: Math.min(...times) };
}

function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The stub domain's shell has no `seq`. */
function numbers(count: number): string {
  return Array.from({ length: count }, (_, i) => i + 1).join(" ");
}

function rate(bytes: number, seconds: number): string {
  return `${seconds.toFixed(3)} s, ${(bytes / seconds / 1e6).toFixed(2)} MB/s`;
}

it.each([64 * KIB, 4 * MIB, 64 * MIB])(
  "%i bytes: the state disk against console 1 and dd",
  async (bytes) => {
    const { ours, dd } = await besideDd(bytes);
    const all = await measure("helper", bytes);
    const ways = [`state disk ${rate(bytes, ours)}`, `all the way ${rate(bytes, all)}`];
    ways.push(`dd ${rate(bytes, dd)}: ${(dd / ours).toFixed(2)} of it`);
    if (bytes <= longestOnConsole) {
      // dom0's QEMU only appends to the file behind console 1: once for each size is enough of it.
      const console1 = await measure("console", bytes, 1);
      ways.push(`console ${rate(bytes, console1)}: ${(console1 / ours).toFixed(1)} times`);
      if (bytes >= 4 * MIB) {
        expect(console1 / ours, ways.join("; ")).toBeGreaterThanOrEqual(20);
        expect(all, ways.join("; ")).toBeLessThan(console1);
      }
    }
    console.log(`${bytes} bytes: ${ways.join("; ")}`);
    if (bytes === 64 * MIB) expect(dd / ours).toBeGreaterThanOrEqual(0.8);
    expect((await guest.agent()).phase).toBe("running");
    await expectNoLeaks(host);
  },
  2_400_000,
);

it("what arrives in dom0 is what was sent, byte for byte", async () => {
  const bytes = 70_000;
  const send = `dd if=/dev/urandom of=/tmp/sent bs=${bytes} count=1 2>/dev/null; stubdom measure helper < /tmp/sent > /dev/null`;
  const sent = await inStubdom(guest, `${send}; sha256sum < /tmp/sent; rm /tmp/sent`);
  const file = `/var/lib/xen/qemu-save.${await guest.domid()}`;
  // The helper's checksums stand behind it.
  const { stdout } = await host.run(`head -c ${bytes} ${file} | sha256sum`);
  expect(stdout.slice(0, 64)).toBe(sent.trim().slice(0, 64));
});
