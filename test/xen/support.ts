/** What the tests on the emulated host share; the host itself is in scripts/lab. */

import { beforeEach, expect, onTestFailed } from "vitest";
import { inStubdom, withShell } from "../../scripts/lab/debug-shell.ts";
import type { Guest } from "../../scripts/lab/guest.ts";
import { PATIENCE } from "../../scripts/lab/patience.ts";
import type { XenHost } from "../../scripts/lab/xen-host.ts";

export { inStubdom, withShell };

/** With `scripts/test --full`. */
export const full = process.env.LINUX_STUBDOM_FULL !== undefined;

/** How often a test does what it does: as often as is promised with `scripts/test --full`, else a few times. */
export function rounds(few: number, promised: number): number {
  return full ? promised : few;
}

/**
 * Types a command at the shell that the test guest has once it is ready, and returns what `answer` captured of
 * the line that came then.
 */
export async function askGuest(
  guest: Guest,
  command: string,
  answer: RegExp,
  seconds = 120,
): Promise<string> {
  const from = guest.serialLines.length;
  guest.type(`${command}\n`);
  const line = await guest.waitForSerial(answer, seconds, from);
  return (answer.exec(line)?.[1] ?? "").trim();
}

/** Bytes that look like no others, in a file of dom0's; their SHA-256 in hex. */
export async function randomFile(host: XenHost, path: string, bytes: number): Promise<string> {
  const { stdout } = await host.run(
    `mkdir -p "$(dirname ${path})" && head -c ${bytes} /dev/urandom > ${path} && sha256sum < ${path}`,
  );
  return stdout.split(" ")[0] ?? "";
}

/** Resolves once the stub domain's log matches. Looks once a second: the log is a file of dom0's. */
export async function waitForLog(guest: Guest, wanted: RegExp, seconds = 60): Promise<string> {
  const deadline = Date.now() + seconds * PATIENCE * 1000;
  for (;;) {
    const line = (await guest.qemuDmLog()).split("\n").find((each) => wanted.test(each));
    if (line !== undefined) return line;
    if (Date.now() > deadline) throw new Error(`${guest.name}: no ${wanted} in the stub domain's log`);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

/** Most KiB that process 1 of a stub domain has resident: without a screen and with nothing to do, and at all times. */
export const mostResident = { idle: Math.floor(4_000_000 / 1024), ever: 4096 };

/** KiB that process 1 of the stub domain has resident now. The debug shell must be on. */
export async function resident(guest: Guest): Promise<number> {
  const status = await inStubdom(guest, "cat /proc/1/status");
  return Number(/^VmRSS:\s+(\d+)/m.exec(status)?.[1] ?? Number.NaN);
}

/** Statistics of a sample for a line in the log. */
export function spread(values: readonly number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? 0;
  return `min ${at(0).toFixed(1)}, median ${at(0.5).toFixed(1)}, max ${at(1).toFixed(1)}`;
}

/** Milliseconds since its kernel booted at which the agent began a phase. */
export function phase(agent: Record<string, string>, name: string): number {
  const value = Number(agent[`phases/${name}`]);
  expect(value, `phases/${name}`).toBeGreaterThan(0);
  return value;
}

/**
 * A failure after fifteen minutes cannot be had again for the asking: what dom0 and Xen know of the guest is printed,
 * the most telling last, and what it said itself.
 *
 * @param of gives the host and, if it has come that far, its guest
 */
export function tellOnFailure(of: () => { host: XenHost; guest?: Guest | undefined }, name: string): void {
  const script = `xl list; ps ax | grep -E 'vchan|qemu|xl '; ls /var/run/xen; dmesg | tail -n 20
    cd /var/log/xen; tail -n 25 qemu-dm-${name}*.log; tail -n 20 xl-${name}*.log *vchan*
    echo '==> xl dmesg, without what guests said <=='; xl dmesg | grep -v '^(d[0-9]' | tail -n 15`;
  beforeEach(() => {
    onTestFailed(async () => {
      const { host, guest } = of();
      const told = (await host.run(script, { accept: "any" })).stdout;
      const serial = guest?.serialLines.slice(-25).join("\n") ?? "";
      const faults = host.guestFaults.join("\n") || "none";
      console.log(
        `${told}\n==> the guest's console <==\n${serial}\n==> the emulator's faults <==\n${faults}`,
      );
    });
  });
}
