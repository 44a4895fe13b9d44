/** What the tests of saving, restoring and migrating share. */

import { expect } from "vitest";
import { xlInfo } from "../../scripts/bench/readings.ts";
import type { Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import type { LabHost } from "../../scripts/lab/host.ts";
import type { XenHost } from "../../scripts/lab/xen-host.ts";

/** Nothing of any transfer is left in dom0: no loop device of ours, no node, no file. */
export async function expectNoLeaks(host: LabHost): Promise<void> {
  // Linux lets go of a loop device when its backend is taken down, which it does in its own time.
  const { stdout } = await host.run(
    `for i in $(seq 20); do
       left=$(losetup -l -n -O NAME,BACK-FILE | grep '(deleted)'
         xenstore-ls -f | grep 268614912
         ls -A /var/lib/xen | grep linux-stubdom)
       [ -z "$left" ] && exit
       sleep 0.5
     done
     echo "$left"`,
  );
  expect(stdout).toBe("");
}

/**
 * The guest's work: a pattern in memory; blocks written to its second disk and read back, also the one before; a TCP
 * connection that dom0 echoes; a clock that goes forward. One line "work N FAULTS CLOCK" a second; what ever went wrong
 * stays counted, also when nobody listened.
 */
const workload = `
ip link set eth0 up
ip addr add 10.9.0.2/24 dev eth0
head -c 4194304 /dev/urandom > /tmp/pattern
sum=$(sha256sum < /tmp/pattern)
: > /tmp/faults
fault() { echo "FAULT $*"; echo "$*" >> /tmp/faults; }
block() { dd if=/dev/sdb bs=512 skip=$(($1 % 2000)) count=1 iflag=direct 2>/dev/null | head -n 1; }
mkfifo /tmp/out
clock=$(cat /sys/devices/system/clocksource/clocksource0/current_clocksource)
! grep -q tsc=reliable /proc/cmdline || case $clock in tsc*) ;; *) fault "its clock is $clock" ;; esac
(while :; do nc 10.9.0.1 7000 < /tmp/out > /tmp/in; fault tcp ended; sleep 1; done) &
exec 3> /tmp/out
n=0
last=0
while :; do
  n=$((n + 1))
  [ "$(sha256sum < /tmp/pattern)" = "$sum" ] || fault memory
  echo "block $n" | dd of=/dev/sdb bs=512 seek=$((n % 2000)) conv=sync,fsync 2>/dev/null
  [ "$(block $n)" = "block $n" ] || fault disk $n
  [ $n = 1 ] || [ "$(block $((n - 1)))" = "block $((n - 1))" ] || fault disk $n, the block before
  echo "line $n" >&3
  t=0
  until grep -qx "line $n" /tmp/in 2>/dev/null; do t=$((t + 1)); [ $t -gt 300 ] && { fault tcp line $n; break; }; usleep 100000; done
  read -r now _ < /proc/uptime
  [ \${now%.*}\${now#*.} -ge $last ] || fault clock from $last to $now
  last=\${now%.*}\${now#*.}
  echo "work $n $(wc -l < /tmp/faults) $now"
  sleep 1
done
`;

/**
 * For a guest that goes from host to host: Linux takes Xen's HPET for its clock, of which it uses 32 bits, 69 s, and which would go
 * on while its device model starts, longer than that on a busy machine. A TSC of another rate Xen emulates, and
 * takes QEMU's exit for an RDTSCP for one of an RDTSC ("Insn mismatch").
 */
export const steadyClock = { timer_mode: "delay_for_missed_ticks" };

/**
 * A disk that boots into {@link workload}. Quiet: each line on an emulated serial port costs time.
 *
 * @param host on which the guest stays: its clock is the TSC then, of 64 bits. With {@link steadyClock} a restored guest's HPET goes
 *   on until its first tick, which sets it back: on a slow machine Linux' clock jumped by 30 s. There Linux does not
 *   find out how fast the TSC is, either, and is told
 */
export async function workingDisk(host?: XenHost): Promise<string> {
  const mhz = host && Number(xlInfo((await host.run("xl info")).stdout, "cpu_mhz"));
  const cmdline = mhz === undefined ? "quiet" : `quiet tsc=reliable tsc_early_khz=${Math.round(mhz * 1000)}`;
  return guestDisk({ cmdline, jobs: ["script"], files: { job: workload } });
}

/** dom0's end of the guest's TCP connection. */
export async function prepareNetwork(host: LabHost, address = "10.9.0.1"): Promise<void> {
  await host.run(
    `ip link add xenbr0 type bridge 2>/dev/null; ip link set xenbr0 up; ip addr replace ${address}/24 dev xenbr0`,
  );
  await host.run("setsid socat TCP-LISTEN:7000,reuseaddr,fork EXEC:cat >/dev/null 2>&1 </dev/null &");
}

/**
 * The guest has done more work since, a whole round at least, and never found anything wrong. Resolves with its clock
 * in seconds.
 */
export async function expectWorking(guest: Guest, seconds = 120): Promise<number> {
  const line = /guest: script work \d+ (\d+) ([\d.]+)/;
  await guest.waitForSerial(line, seconds, guest.serialLines.length);
  const last = await guest.waitForSerial(line, seconds, guest.serialLines.length);
  expect(guest.serial).not.toContain("FAULT");
  const [, faults, clock] = line.exec(last) ?? [];
  expect(Number(faults), last).toBe(0);
  return Number(clock);
}
