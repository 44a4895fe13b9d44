/** What the device tests share: dom0's networks, and what the test guest told of its devices at boot. */

import type { Guest } from "../../../scripts/lab/guest.ts";
import type { XenHost } from "../../../scripts/lab/xen-host.ts";
import { askGuest } from "../support.ts";

/** Three NICs, each on a network of its own. */
export const three = [0, 1, 2] as const;
export const macOf = (n: number): string => `00:16:3e:00:00:1${n}`;
export const bridgeOf = (n: number): string => `xenbr${n}`;
/** The guest's address, and dom0's. */
export const ownOf = (n: number): string => `10.9.${n}.2`;
export const dom0Of = (n: number): string => `10.9.${n}.1`;

export async function threeNetworks(host: XenHost): Promise<void> {
  for (const n of three) {
    const bridge = bridgeOf(n);
    await host.run(
      `ip link show ${bridge} > /dev/null 2>&1 || ip link add ${bridge} type bridge
       ip link set ${bridge} up && ip addr add ${dom0Of(n)}/24 dev ${bridge}`,
    );
  }
}

/** Jobs with which the test guest takes its three addresses, and then pings dom0 on all three at once. */
export const networkJobs: readonly string[] = [
  ...three.map((n) => `net:${macOf(n).replaceAll(":", "")}:${ownOf(n)}/24`),
  `pings:5:${three.map(dom0Of).join("+")}`,
];

/** The guest's name of the NIC with this MAC: drivers come in an order of their own. */
export function nicName(guest: Guest, n: number): string {
  return new RegExp(`guest: nic (eth\\d) ${macOf(n)}`).exec(guest.serial)?.[1] ?? "";
}

/** What the guest read of each disk at boot (job `sha256`): name -> hash. */
export function sumsOf(guest: Guest): Record<string, string> {
  const lines = guest.serialLines.flatMap((line) => [
    ...line.matchAll(/guest: sha256 (\S+) ([0-9a-f]{64})/g),
  ]);
  return Object.fromEntries(lines.map(([, disk = "", sum = ""]) => [disk, sum]));
}

/** Vendor and device of all that is on the guest's PCI bus (job `pci`). */
export function pciOf(guest: Guest): string[] {
  return guest.serialLines.flatMap((line) => /guest: pci \S+ (\S+)/.exec(line)?.[1] ?? []);
}

/** What the guest reads of a disk now: its hash, or `failed`. */
export async function sum(guest: Guest, disk: string): Promise<string> {
  return askGuest(guest, `sumdisk ${disk}`, /guest: sum \S+ (\S+)/);
}

/** Writes and flushes random bytes: their hash, or `failed`. */
export async function write(guest: Guest, disk: string, kib = 64): Promise<string> {
  return askGuest(guest, `writedisk ${disk} ${kib}`, /guest: written \S+ (\S+)/);
}
