import { readNodes } from "../frontends/xenbus.ts";
import type { Logger } from "../log/logger.ts";
import { TransferError } from "../savestate/errors.ts";
import { stateDevice } from "../savestate/protocol.ts";
import { waitFor, type XenstoreClient } from "../xenstore/client.ts";
import { WaitTimedOut, XenstoreError } from "../xenstore/errors.ts";
import type { Operations } from "../xenstore/operations.ts";

/** How long both ends of a vbd may take to close, in milliseconds; then the nodes go from under them. */
const closeDeadline = 5_000;

/**
 * What libxl runs when it takes a disk down together with its domain, and fails without: nothing is to be done
 * for a device that is there already. By it a state disk is known; see {@link isStateDisk}.
 */
const hotplugScript = "/bin/true";

/**
 * libxl hardly ever gets in between; a stub domain that writes below its own `device` can, as often as it likes,
 * and must not cost the others more than this.
 */
const attachAttempts = 8;

/** enum xenbus_state (xen/include/public/io/xenbus.h), as far as a toolstack writes and reads it. */
const XenbusState = { Initialising: 1, Closing: 5, Closed: 6 } as const;

/** The backends of all domains' disks, by domid. */
export const backends = "/local/domain/0/backend/vbd";

interface Nodes {
  readonly front: string;
  readonly back: string;
  readonly libxl: string;
}

function nodesOf(domid: number): Nodes {
  const { number } = stateDevice;
  return {
    front: `/local/domain/${domid}/device/vbd/${number}`,
    back: `${backends}/${domid}/${number}`,
    libxl: `/libxl/${domid}/device/vbd/${number}`,
  };
}

/**
 * Offers a block device of dom0 to a domain as its state disk, with the nodes that libxl writes for
 * `block-attach` (libxl_disk.c, device_disk_add; xen/include/public/io/blkif.h). `xl block-attach` itself has
 * no notion of a stub domain: it wants the configuration that libxl keeps for a domain, and a stub domain has
 * none. With the node under /libxl, libxl takes the disk down together with the domain, helper or no helper.
 *
 * `physical-device`, which a hotplug script would write, is there from the start.
 */
export async function attachDisk(
  xenstore: XenstoreClient,
  domid: number,
  device: { readonly major: number; readonly minor: number },
  access: "r" | "w",
): Promise<void> {
  const { front, back, libxl } = nodesOf(domid);
  const backend = {
    frontend: front,
    "frontend-id": domid,
    online: 1,
    removable: 1,
    bootable: 0,
    state: XenbusState.Initialising,
    dev: stateDevice.name,
    type: "phy",
    script: hotplugScript,
    mode: access,
    "device-type": "disk",
    "discard-enable": 0,
    "physical-device": `${device.major.toString(16)}:${device.minor.toString(16)}`,
  };
  const frontend = {
    backend: back,
    "backend-id": 0,
    state: XenbusState.Initialising,
    "virtual-device": stateDevice.number,
    "device-type": "disk",
  };
  await xenstore.transaction(async (tx) => {
    // Within the transaction: what is written for a domain that has gone since would stay for ever.
    if ((await tx.tryRead(`/local/domain/${domid}/target`)) === undefined)
      throw new TransferError("the stub domain is gone");
    if ((await tx.tryRead(libxl)) !== undefined)
      throw new TransferError(
        `the guest has a disk ${stateDevice.name}, the state disk's name; give it another in disk= of its configuration`,
      );
    await tx.mkdir(libxl);
    await writeAll(tx, libxl, { frontend: front, backend: back, device: stateDevice.number });
    await tx.mkdir(front);
    await tx.setPermissions(front, [
      { domid, access: "none" },
      { domid: 0, access: "read" },
    ]);
    await tx.mkdir(back);
    await tx.setPermissions(back, [
      { domid: 0, access: "none" },
      { domid, access: "read" },
    ]);
    await writeAll(tx, front, frontend);
    await writeAll(tx, back, backend);
  }, attachAttempts);
}

/**
 * Takes the state disk away: asks both ends to close, waits, and removes the nodes. A frontend that does not
 * close, because its domain is hostile or gone, does not keep it. Does nothing where there is none: a disk of that number may
 * be the domain's own.
 */
export async function detachDisk(
  xenstore: XenstoreClient,
  domid: number,
  log: Pick<Logger, "warn">,
): Promise<void> {
  const { front, back, libxl } = nodesOf(domid);
  if (!(await isStateDisk(xenstore, back))) return;
  const state = `${back}/state`;
  const closed = String(XenbusState.Closed);
  if ((await xenstore.tryReadText(state)) !== undefined) {
    await xenstore.transaction(async (tx) => {
      const now = await tx.tryReadText(state);
      if (now === undefined || now === closed) return;
      await tx.write(`${back}/online`, "0");
      await tx.write(state, String(XenbusState.Closing));
    });
    try {
      await waitFor(xenstore, state, (now) => now === undefined || now === closed, closeDeadline);
    } catch (error) {
      if (!(error instanceof WaitTimedOut)) throw error;
      log.warn({ domid }, `domain ${domid} does not let go of its state disk: it is taken away`);
    }
  }
  await removeIfThere(xenstore, front);
  // All that tells of it at once; and libxl may be giving the domain its own disks at this moment.
  await xenstore.transaction(async (tx) => {
    for (const node of [back, libxl]) await removeIfThere(tx, node);
    const parent = `${backends}/${domid}`;
    if ((await tx.tryDirectory(parent)).length === 0) await removeIfThere(tx, parent);
  });
}

/** libxl (device_disk_add) writes another script, and, whatever `script=` says, `params` for all but an empty CD drive. */
async function isStateDisk(xenstore: XenstoreClient, back: string): Promise<boolean> {
  const { script, params } = await readNodes(xenstore, back, ["script", "params"]);
  return script === hotplugScript && params === undefined;
}

export async function removeIfThere(xenstore: Operations, node: string): Promise<void> {
  try {
    await xenstore.remove(node);
  } catch (error) {
    // With the domain, its whole tree may go at any moment.
    if (!(error instanceof XenstoreError && error.code === "ENOENT")) throw error;
  }
}

async function writeAll(tx: Operations, path: string, values: Readonly<Record<string, string | number>>) {
  await Promise.all(
    Object.entries(values).map(([name, value]) => tx.write(`${path}/${name}`, String(value))),
  );
}
