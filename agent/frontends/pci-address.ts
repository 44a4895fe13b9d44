/**
 * Addresses of PCI devices, and which address of the stub domain stands for which of the host. Pure.
 *
 * A passed-through device has two addresses. libxl, QMP and QEMU's arguments know it by the host's; Linux here
 * shows it where dom0's xen-pciback put it: on one virtual bus, the functions of one device in one slot, a
 * virtual function (SR-IOV) always as function 0 (or, with pciback.passthrough=1, at the host's own address).
 * The pairs are in the backend's directory in xenstore (drivers/xen/xen-pciback/xenbus.c):
 *
 *     num_devs   how many there are
 *     dev-N      the host's address          0000:03:00.1    written by libxl
 *     vdev-N     the stub domain's           0000:00:00.01   written by xen-pciback; two digits of function
 *     state-N    1, 3 once it is exported, 5 while it is being detached
 *     opts-N     msitranslate=0,power_mgmt=0,permissive=0,rdm_policy=strict
 *
 * N is a position, not a name: libxl closes the gap when one is detached. QEMU inside of a stub domain reads the
 * same nodes by itself (hw/xen/xen-host-pci-device.c), so no address is ever translated on its behalf.
 */

export interface PciAddress {
  /** Up to 0xffff. */
  readonly domain: number;
  /** Up to 0xff. */
  readonly bus: number;
  /** Up to 0x1f. */
  readonly slot: number;
  /** Up to 7. */
  readonly function: number;
}

/** Reads `0000:03:00.0`, also without the domain and with the function in two digits; `undefined` otherwise. */
export function parsePciAddress(text: string): PciAddress | undefined {
  const match = /^(?:([0-9a-f]{1,4}):)?([0-9a-f]{1,2}):([0-9a-f]{1,2})\.([0-9a-f]{1,2})$/i.exec(text);
  if (match === null) return undefined;
  const [domain = 0, bus = 0, slot = 0, fn = 0] = match
    .slice(1)
    .map((digits: string | undefined) => Number.parseInt(digits ?? "0", 16));
  return slot > 0x1f || fn > 7 ? undefined : { domain, bus, slot, function: fn };
}

/** `0000:03:00.0`, as sysfs and libxl write it. */
export function formatPciAddress({ domain, bus, slot, function: fn }: PciAddress): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  return `${hex(domain, 4)}:${hex(bus, 2)}:${hex(slot, 2)}.${fn}`;
}

export interface PassedThroughDevice {
  readonly host: PciAddress;
  /** Where this domain's Linux shows it; `undefined` while xen-pciback has not exported it. */
  readonly local: PciAddress | undefined;
  /** It is being detached. */
  readonly leaving: boolean;
  /** dom0 lets this domain write the whole of its configuration space. */
  readonly permissive: boolean;
}

/** The nodes of one device, as they are in xenstore. */
export interface DeviceNodes {
  readonly dev: string;
  readonly vdev: string | undefined;
  readonly state: string | undefined;
  readonly opts: string | undefined;
}

/** Which of its nodes holds what cannot be; the others are optional and any text. */
export type WrongNode = "dev" | "vdev";

/** One device of the backend's list, or the name of the node that is wrong. */
export function readDeviceNodes({ dev, vdev, state, opts }: DeviceNodes): PassedThroughDevice | WrongNode {
  const host = parsePciAddress(dev);
  if (host === undefined) return "dev";
  const local = vdev === undefined ? undefined : parsePciAddress(vdev);
  if (vdev !== undefined && local === undefined) return "vdev";
  const permissive = (opts ?? "").split(",").includes("permissive=1");
  return { host, local, leaving: state === "5", permissive };
}

/** The device with that address on the host, unless it is being detached. */
export function deviceAt(
  devices: readonly PassedThroughDevice[],
  host: PciAddress,
): PassedThroughDevice | undefined {
  const name = formatPciAddress(host);
  return devices.find((device) => !device.leaving && formatPciAddress(device.host) === name);
}
