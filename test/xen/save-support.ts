/** What the tests of saving, restoring and migrating share. */

import { join } from "node:path";
import { expect } from "vitest";
import { PROJECT } from "../../bundler/paths.ts";
import type { Guest } from "../../scripts/lab/guest.ts";
import type { LabHost } from "../../scripts/lab/host.ts";

const program = "/usr/local/sbin/stubdom";
const log = "/var/log/xen/stubdom-helper.log";

/** Copies the program into dom0; `stubdom dom0 serve` is started by {@link startHelper}. */
export async function installHelper(host: LabHost): Promise<void> {
  await host.push(join(PROJECT, "dist/stubdom"), program);
  await host.run(`chmod 755 ${program}`);
}

/** Starts the helper; resolves when it serves. */
export async function startHelper(host: LabHost, options = ""): Promise<void> {
  await host.run(`setsid ${program} dom0 serve --debug ${options} >>${log} 2>&1 </dev/null &`);
  await host.run(
    `for i in $(seq 100); do ${program} dom0 status | grep -q 'helper runs' && exit 0; sleep 0.2; done; exit 1`,
  );
}

/** Ends the helper with a signal; resolves when it has gone. */
export async function stopHelper(host: LabHost, signal: "TERM" | "KILL" = "TERM"): Promise<void> {
  const script = `pid=$(pgrep -xo stubdom) || exit 0; kill -${signal} $pid; while [ -d /proc/$pid ]; do sleep 0.1; done`;
  await host.run(script, { timeout: 60 });
}

export async function helperLog(host: LabHost): Promise<string> {
  return (await host.run(["cat", log], { accept: "any" })).stdout;
}

/** Nothing of any transfer is left in dom0: no loop device of ours, no node, no file. */
export async function expectNoLeaks(host: LabHost): Promise<void> {
  const loops = await host.run("losetup -l -n -O BACK-FILE | grep -c '(deleted)' || true");
  expect(loops.stdout.trim()).toBe("0");
  const nodes = await host.run("xenstore-ls -f | grep -c 268614912 || true");
  expect(nodes.stdout.trim()).toBe("0");
  const files = await host.run("ls -A /var/lib/xen | grep -c linux-stubdom || true");
  expect(files.stdout.trim()).toBe("0");
}

/**
 * The guest's work: a pattern in memory, blocks written to its second disk and read back, a TCP connection
 * that dom0 echoes, a clock that goes forward. One line "work N" a second while all of it holds.
 */
export const workload = `
ip link set eth0 up
ip addr add 10.9.0.2/24 dev eth0
head -c 4194304 /dev/urandom > /tmp/pattern
sum=$(sha256sum < /tmp/pattern)
mkfifo /tmp/out
(while :; do nc 10.9.0.1 7000 < /tmp/out > /tmp/in; echo "FAULT tcp ended"; sleep 1; done) &
exec 3> /tmp/out
n=0
last=0
while :; do
  n=$((n + 1))
  [ "$(sha256sum < /tmp/pattern)" = "$sum" ] || echo "FAULT memory"
  echo "block $n" | dd of=/dev/sdb bs=512 seek=$((n % 2000)) conv=sync,fsync 2>/dev/null
  [ "$(dd if=/dev/sdb bs=512 skip=$((n % 2000)) count=1 iflag=direct 2>/dev/null | head -n 1)" = "block $n" ] || echo "FAULT disk"
  echo "line $n" >&3
  t=0
  until grep -qx "line $n" /tmp/in 2>/dev/null; do t=$((t + 1)); [ $t -gt 300 ] && { echo "FAULT tcp"; break; }; usleep 100000; done
  read -r now _ < /proc/uptime
  [ \${now%%.*} -ge $last ] || echo "FAULT clock"
  last=\${now%%.*}
  echo "work $n"
  sleep 1
done
`;

/** dom0's end of the guest's TCP connection. */
export async function prepareNetwork(host: LabHost, address = "10.9.0.1"): Promise<void> {
  await host.run(
    `ip link add xenbr0 type bridge 2>/dev/null; ip link set xenbr0 up; ip addr replace ${address}/24 dev xenbr0`,
  );
  await host.run("setsid socat TCP-LISTEN:7000,reuseaddr,fork EXEC:cat >/dev/null 2>&1 </dev/null &");
}

/** The guest has done more work since, and found nothing wrong. */
export async function expectWorking(guest: Guest, seconds = 120): Promise<void> {
  const from = guest.serialLines.length;
  await guest.waitForSerial("guest: script work", seconds, from);
  expect(guest.serial).not.toContain("FAULT");
}
