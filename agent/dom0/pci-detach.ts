/**
 * `xl pci-detach` for a guest with a stub domain.
 *
 * libxl (tools/libs/light/libxl_pci.c, Xen 4.17 to 4.20) lists a guest's PCI devices by the directory of the
 * guest's own PCI backend, and with a stub domain makes that directory for the stub domain alone. So it finds none:
 * `xl pci-list` is empty, `xl pci-detach` fails at once. Everything behind that list works. While xl runs, this
 * puts a list where libxl looks, the same as the stub domain's; without a `state` xen-pciback leaves it alone.
 */

import { formatPciAddress, parsePciAddress } from "../frontends/pci-address.ts";
import type { Platform } from "../platform/port.ts";
import type { Operations } from "../xenstore/operations.ts";
import { Toolstack } from "./toolstack.ts";
import { connectXenstore, findDomain } from "./xenstore.ts";

export interface DetachedDevice {
  readonly domid: number;
  /** On the host. */
  readonly address: string;
}

/** Where libxl keeps and looks for the PCI devices of a domain. */
function listPath(domid: number): string {
  return `/local/domain/0/backend/pci/${domid}`;
}

/**
 * Detaches a device of the host from a guest that runs, whether it has a stub domain or not.
 *
 * @param address on the host: `0000:03:00.0`
 * @throws RangeError (no such guest, no address), TransferError (xl failed; it has said why), XenstoreFailure
 */
export async function detachPciDevice(
  platform: Platform,
  guest: string,
  address: string,
): Promise<DetachedDevice> {
  const host = parsePciAddress(address);
  if (host === undefined) throw new RangeError(`not a PCI address like 0000:03:00.0: ${address}`);
  const name = formatPciAddress(host);
  const xenstore = connectXenstore(platform);
  try {
    const domid = await findDomain(xenstore, guest);
    const toolstack = new Toolstack(platform);
    const listed = await xenstore.transaction((tx) => listDevices(tx, domid));
    try {
      await toolstack.xl("pci-detach", String(domid), name);
    } finally {
      if (listed) await xenstore.remove(listPath(domid));
    }
    return { domid, address: name };
  } finally {
    xenstore.close();
  }
}

/**
 * Gives the guest the list of its stub domain's devices, as libxl writes one.
 *
 * @returns whether it did: not for a guest without a stub domain, or without devices
 */
export async function listDevices(tx: Operations, domid: number): Promise<boolean> {
  const stubdom = await tx.tryReadText(`/local/domain/${domid}/image/device-model-domid`);
  if (stubdom === undefined) return false;
  const [from, to] = [`${listPath(Number(stubdom))}/0`, `${listPath(domid)}/0`];
  const nodes = await tx.tryDirectory(from);
  // A list with a state is libxl's own.
  if (!nodes.includes("num_devs") || (await tx.tryReadText(`${to}/frontend`)) !== undefined) return false;
  // Not where the stub domain sees it, nor its states: xen-pciback's business with the stub domain.
  const copied = nodes.filter((node) => node === "num_devs" || /^(key|dev|opts|vdevfn|name)-\d+$/.test(node));
  for (const node of copied) await tx.write(`${to}/${node}`, await tx.read(`${from}/${node}`));
  for (const node of copied) {
    const position = /^dev-(\d+)$/.exec(node)?.[1];
    if (position !== undefined) await tx.write(`${to}/state-${position}`, "1");
  }
  return true;
}
