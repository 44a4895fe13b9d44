/** Passed-through PCI devices: one frontend, `device/pci/0`, whose backend lists them. */
import type { FileSystem } from "../platform/port.ts";
import type { Operations } from "../xenstore/operations.ts";
import { BadNode } from "./errors.ts";
import {
  backendRemedy,
  type Ends,
  type Frontend,
  namesIn,
  parseEnds,
  parseNumber,
  readNodes,
} from "./xenbus.ts";

/** A bus of 32 slots of 8 functions. */
const mostDevices = 256;

export interface PassedThroughDevice {
  /** Its address on the host, `0000:03:00.0`. */
  readonly host: string;
  /** `msitranslate=0,power_mgmt=0,permissive=0,rdm_policy=strict`. */
  readonly options: string;
}

export class PciFrontend implements Frontend {
  readonly kind = "pci";
  readonly id: number;
  readonly path: string;
  readonly backend: string;
  readonly backendDomid: number;
  readonly essential = true;

  private constructor(
    ends: Ends,
    readonly devices: readonly PassedThroughDevice[],
  ) {
    ({ id: this.id, path: this.path, backend: this.backend, backendDomid: this.backendDomid } = ends);
  }

  get label(): string {
    return `PCI bus with ${this.devices.map((device) => device.host).join(", ") || "no device"}`;
  }

  get awaited(): boolean {
    return this.devices.length > 0;
  }

  static async read(store: Operations, id: number): Promise<PciFrontend> {
    const path = `device/pci/${id}`;
    const ends = parseEnds(path, id, await store.tryReadText(`${path}/backend`));
    const node = `${ends.backend}/num_devs`;
    const count = parseNumber(node, await store.tryReadText(node), mostDevices);
    const devices = await Promise.all(
      Array.from({ length: count }, (_, index) => readDevice(store, ends.backend, index)),
    );
    return new PciFrontend(ends, devices);
  }

  /** A PV domain has no PCI device but pcifront's: there must be as many as were passed through. */
  linuxDevices(files: FileSystem): readonly string[] {
    const found = namesIn(files, "/sys/bus/pci/devices");
    return found.length >= this.devices.length ? found : [];
  }

  remedy(_frontendState: number | undefined, backendState: number | undefined): string {
    return backendRemedy(
      backendState,
      "xen-pciback is loaded in dom0 and owns the devices (`xl pci-assignable-list`)",
    );
  }
}

async function readDevice(store: Operations, backend: string, index: number): Promise<PassedThroughDevice> {
  const host = `dev-${index}` as const;
  const options = `opts-${index}` as const;
  const nodes = await readNodes(store, backend, [host, options]);
  const address = nodes[host];
  if (address === undefined || !/^[0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]$/i.test(address)) {
    throw new BadNode(`${backend}/${host}`, address, "a PCI address like 0000:03:00.0");
  }
  return { host: address.toLowerCase(), options: nodes[options] ?? "" };
}
