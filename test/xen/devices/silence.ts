/** The stub domain has no address on the guest's network and answers nothing, whoever asks. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { Guest } from "../../../scripts/lab/guest.ts";
import { askGuest, inStubdom } from "../support.ts";

export interface SilentNic {
  readonly devid: number;
  readonly bridge: string;
  /** The guest's address, `10.9.0.2`. */
  readonly own: string;
  /** The guest's name for it, `eth0`. */
  name(): string;
}

/** The guest's debug shell must be on. The NIC works as before at the end. */
export function silenceTests(guestOf: () => Guest, nic: SilentNic): void {
  const prefix = nic.own.replace(/\.\d+$/, "");

  it("the stub domain has no address, and listens on no port", async () => {
    const said = await inStubdom(
      guestOf(),
      "for i in /sys/class/net/*; do echo mac $(cat $i/address); done; cat /proc/net/fib_trie /proc/net/tcp /proc/net/udp /proc/net/raw /proc/net/if_inet6 /proc/net/packet 2>&1",
    );
    expect(said).not.toMatch(/host LOCAL|32 host/);
    expect(said).not.toMatch(/^ *\d+: [0-9A-F]{8}:/m);
    expect(said).not.toMatch(/^fe80/m);
  });

  it("says nothing to dom0's network, whatever it is asked, while the guest is silent", async () => {
    const guest = guestOf();
    const { host } = guest;
    const vif = `vif${await guest.stubdomId()}.${nic.devid}`;
    const macs = await addresses(guest);
    await askGuest(guest, `ip link set ${nic.name()} down; echo guest: silent`, /guest: (silent)/);
    await host.push(readFileSync(join(import.meta.dirname, "../dom0/scan.py")), "/root/scan.py");
    const { stdout } = await host.run(["python3", "/root/scan.py", vif, prefix, ...macs], { timeout: 600 });
    const [sent, ...answers] = stdout.trim().split("\n");
    console.log(`${sent} frames, ${answers.length} came back`);
    expect(Number(sent?.split(" ")[1])).toBeGreaterThan(5000);
    expect(answers).toEqual([]);
    await askGuest(guest, `ip link set ${nic.name()} up; echo guest: loud`, /guest: (loud)/);
  }, 900_000);

  it("says nothing to the guest, whatever it asks, while the network is cut off", async () => {
    const guest = guestOf();
    const { host } = guest;
    const vif = `vif${await guest.stubdomId()}.${nic.devid}`;
    const macs = await addresses(guest);
    await host.run(["ip", "link", "set", vif, "nomaster"]);
    const came = await askGuest(
      guest,
      `knock ${nic.name()} ${nic.own}/24 ${macs.join(" ")}`,
      /guest: knocked \S+ (\d+)/,
      900,
    );
    await host.run(["ip", "link", "set", vif, "master", nic.bridge]);
    expect(came).toBe("0");
  }, 1200_000);
}

/** Of all interfaces that the stub domain has, and that anybody could send to. */
async function addresses(guest: Guest): Promise<string[]> {
  const said = await inStubdom(guest, "cat /sys/class/net/*/address");
  return [...new Set(said.match(/([0-9a-f]{2}:){5}[0-9a-f]{2}/g))].filter(
    (each) => each !== "00:00:00:00:00:00",
  );
}
