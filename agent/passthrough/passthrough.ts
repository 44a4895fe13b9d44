/**
 * PCI passthrough as the agent sees it. libxl (tools/libs/light/libxl_pci.c, Xen 4.17 to 4.20) gives the device
 * to the stub domain first, as a PV device, and then asks QEMU for it by `device_add`, both at `xl create` and at
 * `xl pci-attach`. It waits only for the backend to be connected, which is before our kernel has scanned the bus;
 * QEMU would refuse, and libxl ask again a second later, ten times at most and for 10 s in all. So the command
 * waits here until the device answers, and then goes on to QEMU as it is. `device_del` needs nothing.
 */

import { readPciBus } from "../frontends/pci.ts";
import {
  formatPciAddress,
  type PassedThroughDevice,
  type PciAddress,
  parsePciAddress,
} from "../frontends/pci-address.ts";
import { capabilityMsi, capabilityMsix } from "../frontends/pci-config.ts";
import { type AnsweringDevice, awaitPciDevice } from "../frontends/pci-wait.ts";
import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import type { CommandGate } from "../qmp/proxy.ts";
import type { XenstoreClient } from "../xenstore/client.ts";

/** QEMU's name of the device. */
export const passthroughDriver = "xen-pci-passthrough";

/** How long libxl keeps asking for one device; what comes later is another attempt. In milliseconds. */
const oneAttempt = 15_000;

export class Passthrough {
  /** For each device that libxl is asking for: until when it is waited for. */
  readonly #deadlines = new Map<string, number>();

  constructor(
    private readonly store: XenstoreClient,
    private readonly platform: Platform,
    private readonly log: Logger,
    /** How long a device may take to answer, in milliseconds; all of libxl's tries for it together. */
    private readonly patience: number,
    /** Told what a device is refused for, once for each command: for the log and for dom0. */
    private readonly complain: (text: string) => void = (text) => log.error({}, text),
  ) {}

  /** For the QMP proxy: holds a `device_add` of a host's device until that device answers. */
  readonly beforeDeviceAdd: CommandGate = async ({ driver, hostaddr }) => {
    if (driver !== passthroughDriver) return;
    const host = typeof hostaddr === "string" ? parsePciAddress(hostaddr) : undefined;
    // QEMU words the error for what is no address.
    if (host === undefined) return;
    try {
      await this.answers(host);
    } catch (error) {
      this.complain(`device_add: ${error instanceof Error ? error.message : String(error)}`);
      throw error;
    }
  };

  /** Why the guest cannot be saved: a device of the host would be left out of the state. */
  async keepsFromSaving(): Promise<string | undefined> {
    const devices = (await this.#devices()).filter(({ leaving }) => !leaving);
    return devices.length === 0 ? undefined : assignedText(devices);
  }

  /** The devices of the host that this domain has at the moment, for people. */
  async list(): Promise<{ kind: "pci"; name: string; detail: string }[]> {
    return (await this.#devices()).map(({ host, local, leaving, permissive }) => ({
      kind: "pci",
      name: `PCI device ${formatPciAddress(host)} of the host`,
      detail: [
        local === undefined ? "not exported yet" : `${formatPciAddress(local)} here`,
        ...(permissive ? ["permissive"] : []),
        ...(leaving ? ["being detached"] : []),
      ].join(", "),
    }));
  }

  async #devices(): Promise<readonly PassedThroughDevice[]> {
    return (await readPciBus(this.store))?.devices ?? [];
  }

  /**
   * Waits until the device answers, and logs what it is and what it will not do.
   *
   * @throws PciDeviceMissing, BadNode, XenstoreFailure, SystemError
   */
  async answers(host: PciAddress): Promise<void> {
    const name = formatPciAddress(host);
    const { clock } = this.platform;
    for (const [other, until] of this.#deadlines) {
      if (until + oneAttempt - this.patience < clock.now()) this.#deadlines.delete(other);
    }
    const until = this.#deadlines.get(name) ?? clock.now() + this.patience;
    this.#deadlines.set(name, until);
    const device = await awaitPciDevice(this.store, this.platform, host, Math.max(0, until - clock.now()));
    this.#deadlines.delete(name);
    for (const { level, text } of describe(device)) this.log[level]({}, text);
  }
}

function assignedText(devices: readonly PassedThroughDevice[]): string {
  const names = devices.map(({ host }) => formatPciAddress(host)).join(", ");
  return `the guest has PCI device ${names} of the host, whose state nobody can save; detach it first (xl pci-detach), or shut the guest down instead`;
}

/** What is said of a device that answers, line by line. */
export function describe(device: AnsweringDevice): { level: "info" | "warn"; text: string }[] {
  const { capabilities, permissive } = device;
  const host = formatPciAddress(device.host);
  const hex = (value: number) => value.toString(16).padStart(4, "0");
  const lines: { level: "info" | "warn"; text: string }[] = [
    {
      level: "info",
      text: `PCI device ${host} of the host, ${formatPciAddress(device.local)} here: ${hex(device.vendor)}:${hex(device.device)} answers after ${device.milliseconds.toFixed(0)} ms`,
    },
  ];
  const messages = [
    ...(capabilities.includes(capabilityMsi) ? ["MSI"] : []),
    ...(capabilities.includes(capabilityMsix) ? ["MSI-X"] : []),
  ].join(" and ");
  if (messages !== "" && !permissive) {
    lines.push({
      level: "warn",
      text: `PCI device ${host} of the host has ${messages}, which QEMU switches on in its configuration space, and dom0's xen-pciback forbids a stub domain that: if the guest's driver gets no interrupts, put permissive=1 behind the device in pci= (it may then write all of that space), or write ${host} to /sys/bus/pci/drivers/pciback/allow_interrupt_control in dom0 before (interrupts alone)`,
    });
  }
  return lines;
}
