/**
 * The PCI devices of a guest with a stub domain, for libxl.
 *
 * libxl (tools/libs/light/libxl_pci.c, Xen 4.17 to 4.20) takes a guest's devices from the directory of the guest's
 * own PCI backend, and with a stub domain makes that directory for the stub domain alone. So it finds none:
 * `xl pci-list` is empty, `xl pci-detach` fails at once, and a guest that reboots comes back without its devices
 * ("Device present in JSON but not in xenstore, ignored"). All that is behind the list works. So the helper writes the
 * list that libxl looks for. It has no `state` and no `frontend`, and so xen-pciback leaves it alone.
 *
 * Entries are only added here: libxl itself removes each from both lists, the guest's last.
 */
import type { Logger } from "../log/logger.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import type { Operations } from "../xenstore/operations.ts";
import { NodeWatch } from "./xenstore.ts";

/** xenbus_state of Xen's io/xenbus.h. */
const initialising = "1";
const closing = "5";
/** A bus of 32 slots of 8 functions. */
const mostDevices = 256;

/** What libxl writes of a device, by its position; what xen-pciback adds for the stub domain is left out. */
const copied = ["key", "opts", "vdevfn", "name"] as const;

function listPath(domid: number): string {
  return `/local/domain/0/backend/pci/${domid}/0`;
}

/** Follows the devices of one stub domain. */
export class PciList {
  readonly #watch = new NodeWatch();

  constructor(
    private readonly xenstore: XenstoreClient,
    private readonly log: Logger,
    private readonly domid: number,
    private readonly target: number,
  ) {}

  /** Throws {@link XenstoreFailure}. */
  async start(): Promise<void> {
    await this.#watch.set(this.xenstore, `/local/domain/0/backend/pci/${this.domid}`, (path) => {
      // libxl writes a device in one transaction; this is the node that it always has.
      if (/\/dev-[0-9]+$/.test(path)) void this.#look().catch((error) => this.#failed(error));
    });
    if (!this.#watch.stopped) await this.#look();
  }

  /** Idempotent. */
  stop(): void {
    this.#watch.stop();
  }

  async #look(): Promise<void> {
    const added = await this.xenstore.transaction((tx) => addDevices(tx, this.domid, this.target));
    for (const device of added)
      this.log.info({}, `domain ${this.target}: PCI device ${device} is in its list, for libxl`);
  }

  #failed(error: unknown): void {
    if (!this.#watch.stopped) this.log.error({}, `domain ${this.target}: its PCI devices: ${String(error)}`);
  }
}

/** Adds to the guest's list what only its stub domain's has; resolves to the addresses. */
async function addDevices(tx: Operations, stubdom: number, target: number): Promise<string[]> {
  const [from, to] = [listPath(stubdom), listPath(target)];
  // A list with a frontend is of libxl's own making.
  if ((await tx.tryReadText(`${to}/frontend`)) !== undefined) return [];
  const known = await devices(tx, to);
  const missing = (await devices(tx, from)).filter(
    ({ address, state }) => state !== closing && !known.some((other) => other.address === address),
  );
  for (const [index, { position, address }] of missing.entries()) {
    const end = known.length + index;
    await tx.write(`${to}/dev-${end}`, address);
    await tx.write(`${to}/state-${end}`, initialising);
    for (const name of copied) {
      const value = await tx.tryReadText(`${from}/${name}-${position}`);
      if (value !== undefined) await tx.write(`${to}/${name}-${end}`, value);
    }
  }
  if (missing.length > 0) await tx.write(`${to}/num_devs`, String(known.length + missing.length));
  return missing.map(({ address }) => address);
}

interface Listed {
  readonly position: number;
  readonly address: string;
  readonly state: string | undefined;
}

/** In the order of their positions, which have no gaps in what libxl commits. */
async function devices(tx: Operations, list: string): Promise<Listed[]> {
  const count = Math.min(mostDevices, Number((await tx.tryReadText(`${list}/num_devs`)) ?? 0));
  const found: Listed[] = [];
  for (let position = 0; position < count; position++) {
    const address = await tx.tryReadText(`${list}/dev-${position}`);
    const state = await tx.tryReadText(`${list}/state-${position}`);
    if (address !== undefined) found.push({ position, address, state });
  }
  return found;
}
