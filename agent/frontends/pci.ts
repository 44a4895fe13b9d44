/** Passed-through PCI devices: one frontend, `device/pci/0`, whose backend lists them. */
import type { FileSystem } from "../platform/port.ts";
import { isOutOfSight } from "../xenstore/errors.ts";
import type { Operations } from "../xenstore/operations.ts";
import { BadNode } from "./errors.ts";
import { formatPciAddress, type PassedThroughDevice, readDeviceNodes } from "./pci-address.ts";
import { backendRemedy, type Frontend, namesIn, parseNumber, readBackend, readNodes } from "./xenbus.ts";

/** A bus of 32 slots of 8 functions. */
const mostDevices = 256;

export const pciRemedy = "xen-pciback is loaded in dom0 and owns the devices (`xl pci-assignable-list`)";

export class PciFrontend implements Frontend {
  readonly kind = "pci";
  readonly essential = true;

  private constructor(
    readonly id: number,
    readonly path: string,
    /** Where the devices are listed. */
    readonly backend: string,
    readonly devices: readonly PassedThroughDevice[],
  ) {}

  get label(): string {
    const names = this.devices.map(({ host }) => formatPciAddress(host));
    return `PCI bus with ${names.join(", ") || "no device"}`;
  }

  get awaited(): boolean {
    return this.devices.length > 0;
  }

  /** @throws BadNode */
  static async read(store: Operations, id: number): Promise<PciFrontend> {
    const path = `device/pci/${id}`;
    const backend = await readBackend(store, path);
    return new PciFrontend(id, path, backend.path, await readDevices(store, backend.path));
  }

  /** A PV domain has no PCI device but pcifront's: there must be as many as were passed through. */
  linuxDevices(files: FileSystem): readonly string[] {
    const found = namesIn(files, "/sys/bus/pci/devices");
    return found.length >= this.devices.length ? found : [];
  }

  remedy(_frontendState: number | undefined, backendState: number | undefined): string {
    return backendRemedy(backendState, pciRemedy);
  }
}

/** The one bus that libxl gives a domain, as it is now; `undefined` when it has none. @throws BadNode */
export async function readPciBus(store: Operations): Promise<PciFrontend | undefined> {
  if ((await store.tryReadText("device/pci/0/backend")) === undefined) return undefined;
  try {
    return await PciFrontend.read(store, 0);
  } catch (error) {
    // It goes with its last device, and may do so between two reads.
    if (isOutOfSight(error)) return undefined;
    throw error;
  }
}

/**
 * One node after the other, so libxl may close a gap in the numbers meanwhile: what has gone is left out, and
 * whoever waits is told by xenstore to look again.
 */
async function readDevices(store: Operations, backend: string): Promise<readonly PassedThroughDevice[]> {
  const node = `${backend}/num_devs`;
  const value = await store.tryReadText(node);
  const count = value === undefined ? 0 : parseNumber(node, value, mostDevices);
  const devices = Array.from({ length: count }, (_, index) => readDevice(store, backend, index));
  return (await Promise.all(devices)).filter((device) => device !== undefined);
}

async function readDevice(
  store: Operations,
  backend: string,
  index: number,
): Promise<PassedThroughDevice | undefined> {
  const kinds = ["dev", "vdev", "state", "opts"] as const;
  const names = kinds.map((kind) => `${kind}-${index}` as const);
  const values = await readNodes(store, backend, names);
  const [dev, vdev, state, opts] = names.map((name) => values[name]);
  if (dev === undefined) return undefined;
  const device = readDeviceNodes({ dev, vdev, state, opts });
  if (typeof device !== "string") return device;
  const value = device === "dev" ? dev : vdev;
  throw new BadNode(`${backend}/${device}-${index}`, value, "a PCI address like 0000:03:00.0");
}
