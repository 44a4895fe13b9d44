/** Waiting for one passed-through PCI device: until its configuration space answers, or a deadline. */
import type { Platform } from "../platform/port.ts";
import type { Watch, XenstoreClient } from "../xenstore/client.ts";
import { FrontendFailure } from "./errors.ts";
import { KernelEvents } from "./kernel-events.ts";
import { type PciFrontend, pciRemedy, readPciBus } from "./pci.ts";
import { deviceAt, formatPciAddress, type PassedThroughDevice, type PciAddress } from "./pci-address.ts";
import { type PciIdentity, readCapabilities, readIdentity, withConfigSpace } from "./pci-config.ts";
import { backendRemedy, parseState, stateText } from "./xenbus.ts";

export interface AnsweringDevice extends PciIdentity {
  readonly host: PciAddress;
  readonly local: PciAddress;
  readonly permissive: boolean;
  readonly capabilities: readonly number[];
  /** From the call to its answer. */
  readonly milliseconds: number;
}

/** A passed-through device cannot be had. The message names it as the host knows it and as it is known here. */
export class PciDeviceMissing extends FrontendFailure {
  override readonly name = "PciDeviceMissing";
  constructor(
    readonly host: PciAddress,
    /** `undefined` where this domain has no address for it. */
    readonly local: PciAddress | undefined,
    problem: string,
    readonly remedy: string,
  ) {
    const here = local === undefined ? "without an address here" : `${formatPciAddress(local)} here`;
    super(`PCI device ${formatPciAddress(host)} of the host, ${here}: ${problem}; ${remedy}`);
  }
}

type Sight =
  | { readonly step: "no bus" }
  | { readonly step: "not listed"; readonly bus: PciFrontend }
  | { readonly step: "not exported"; readonly bus: PciFrontend }
  | { readonly step: "not shown"; readonly bus: PciFrontend; readonly local: PciAddress }
  | { readonly step: "answers"; readonly device: Omit<AnsweringDevice, "milliseconds"> };

type Machine = Pick<Platform, "descriptors" | "sockets" | "clock">;

/**
 * Waits until Linux shows the device that is `host` on the host, and its configuration space answers. Nothing
 * is polled: pcifront's states are watched in xenstore, and the kernel tells of a device that has come.
 *
 * Linux itself waits at its scan for a device that is slow after a reset, so one that is shown and does not
 * answer is refused at once.
 *
 * @param milliseconds how long at most; 0 looks once
 * @throws PciDeviceMissing, BadNode, XenstoreFailure, SystemError
 */
export async function awaitPciDevice(
  client: XenstoreClient,
  platform: Machine,
  host: PciAddress,
  milliseconds: number,
): Promise<AnsweringDevice> {
  const { clock } = platform;
  const began = clock.now();
  let wake: () => void = () => {};
  let lost: unknown;
  let late = false;
  let news = false;
  const tell = () => {
    news = true;
    wake();
  };
  const events = new KernelEvents(platform, tell);
  const deadline = clock.setTimer(milliseconds, () => {
    late = true;
    wake();
  });
  let watch: Watch | undefined;
  try {
    watch = await client.watch("device/pci", tell, (error) => {
      lost = error;
      wake();
    });
    // Before the first look, so that nothing comes in between.
    events.open();
    for (;;) {
      // What comes at the very end is still looked at, and nothing after it.
      const last = late;
      news = false;
      const sight = await look(client, platform, host);
      if (sight.step === "answers") return { ...sight.device, milliseconds: clock.now() - began };
      if (lost !== undefined) throw lost;
      if (last) throw await missing(client, host, sight, clock.now() - began);
      if (news || late) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  } finally {
    deadline.cancel();
    events.close();
    void watch?.stop().catch(() => {});
  }
}

async function look(client: XenstoreClient, { descriptors }: Machine, host: PciAddress): Promise<Sight> {
  const bus = await readPciBus(client);
  if (bus === undefined) return { step: "no bus" };
  const device = deviceAt(bus.devices, host);
  if (device === undefined) return { step: "not listed", bus };
  const { local, permissive } = device;
  if (local === undefined) return { step: "not exported", bus };
  refuseTwins(bus.devices, device, local);
  const answer = withConfigSpace(descriptors, local, (read) => {
    const identity = readIdentity(read);
    return { ...identity, capabilities: identity.vendor === 0xffff ? [] : readCapabilities(read) };
  });
  if (answer === undefined) return { step: "not shown", bus, local };
  if (answer.vendor === 0xffff) {
    throw new PciDeviceMissing(
      host,
      local,
      "it is there and answers 0xffff",
      "it is switched off, hangs after a reset, or has left the bus: see dom0's kernel log, and reset or remove it there",
    );
  }
  return { step: "answers", device: { ...answer, host, local, permissive } };
}

/** Two devices of the host at one address here: whatever QEMU opened there, it could be the wrong one. */
function refuseTwins(
  devices: readonly PassedThroughDevice[],
  device: PassedThroughDevice,
  local: PciAddress,
): void {
  const name = formatPciAddress(local);
  const twin = devices.find(
    (other) =>
      other !== device &&
      other.local !== undefined &&
      !other.leaving &&
      formatPciAddress(other.local) === name,
  );
  if (twin === undefined) return;
  throw new PciDeviceMissing(
    device.host,
    local,
    `that is the address of ${formatPciAddress(twin.host)} too`,
    "libxl and xen-pciback disagree: detach both and attach them again, see `xenstore-ls` in dom0",
  );
}

async function missing(
  client: XenstoreClient,
  host: PciAddress,
  sight: Exclude<Sight, { step: "answers" }>,
  milliseconds: number,
): Promise<PciDeviceMissing> {
  const after = `after ${Math.round(milliseconds)} ms`;
  if (sight.step === "no bus") {
    const problem = `dom0 has given this domain no PCI bus ${after}`;
    return new PciDeviceMissing(
      host,
      undefined,
      problem,
      "name it in pci=, or use xl pci-attach, not device_model_args_hvm",
    );
  }
  const { bus } = sight;
  if (sight.step === "not listed") {
    const others = bus.devices.map((device) => formatPciAddress(device.host)).join(", ") || "none";
    return new PciDeviceMissing(
      host,
      undefined,
      `not among the devices in ${bus.backend} ${after} (${others})`,
      "libxl lists it before it asks QEMU: see that the address is the same in `xl pci-list` and `xl pci-assignable-list`",
    );
  }
  const [frontend, backend, error] = await Promise.all([
    client.tryReadText(`${bus.path}/state`),
    client.tryReadText(`${bus.backend}/state`),
    client.tryReadText(`error/${bus.path}/error`),
  ]);
  const states = [parseState(`${bus.path}/state`, frontend), parseState(`${bus.backend}/state`, backend)];
  const said = error ? `; our kernel says ${JSON.stringify(error.slice(0, 200))}` : "";
  const what =
    sight.step === "not exported" ? "xen-pciback has not exported it" : "our kernel does not show it";
  return new PciDeviceMissing(
    host,
    sight.step === "not shown" ? sight.local : undefined,
    `${what} ${after}: frontend state ${stateText(states[0])}, backend ${bus.backend} state ${stateText(states[1])}${said}`,
    sight.step === "not exported"
      ? backendRemedy(states[1], pciRemedy)
      : "it did not answer when our kernel scanned the bus (switched off, or hanging after a reset): see dom0's kernel log",
  );
}
