/** Which PV devices libxl gave this stub domain. */
import type { Operations } from "../xenstore/operations.ts";
import { BlockFrontend } from "./block.ts";
import { ConsoleFrontend } from "./console.ts";
import { BadNode } from "./errors.ts";
import { FramebufferFrontend, KeyboardFrontend } from "./framebuffer.ts";
import { NicFrontend } from "./nic.ts";
import { PciFrontend } from "./pci.ts";
import { type Frontend, parseNumber } from "./xenbus.ts";

/** Each list in the order of the numbers. */
export interface Frontends {
  readonly disks: readonly BlockFrontend[];
  readonly nics: readonly NicFrontend[];
  readonly framebuffers: readonly FramebufferFrontend[];
  readonly keyboards: readonly KeyboardFrontend[];
  readonly pci: readonly PciFrontend[];
  /** From the primary one on. */
  readonly consoles: readonly ConsoleFrontend[];
}

export function allFrontends(found: Frontends): readonly Frontend[] {
  const { disks, nics, framebuffers, keyboards, pci, consoles } = found;
  return [...disks, ...nics, ...framebuffers, ...keyboards, ...pci, ...consoles];
}

/** Most devices of one kind; a domain's grant table holds no more disks than this either. */
const mostOfAKind = 128;

/**
 * Reads all of them, in three round trips however many there are. Throws {@link BadNode} for the first one
 * that cannot be, and {@link XenstoreFailure}.
 */
export async function discoverFrontends(store: Operations): Promise<Frontends> {
  const [disks, nics, framebuffers, keyboards, pci, primary, others] = await Promise.all([
    readKind(store, "vbd", BlockFrontend.read),
    readKind(store, "vif", NicFrontend.read),
    readKind(store, "vfb", FramebufferFrontend.read),
    readKind(store, "vkbd", KeyboardFrontend.read),
    readKind(store, "pci", PciFrontend.read),
    ConsoleFrontend.read(store, 0),
    // Linux takes no device/console/0 for a console either.
    readKind(store, "console", ConsoleFrontend.read, 1),
  ]);
  return { disks, nics, framebuffers, keyboards, pci, consoles: [primary, ...others] };
}

async function readKind<T extends Frontend>(
  store: Operations,
  kind: string,
  read: (store: Operations, id: number) => Promise<T>,
  first = 0,
): Promise<readonly T[]> {
  const directory = `device/${kind}`;
  const names = await store.tryDirectory(directory);
  if (names.length > mostOfAKind) {
    throw new BadNode(directory, `${names.length} devices`, `at most ${mostOfAKind}`);
  }
  const ids = names.map((name) => parseNumber(`${directory}/${name}`, name, 0x7fff_ffff));
  ids.sort((a, b) => a - b);
  return Promise.all(ids.filter((id) => id >= first).map((id) => read(store, id)));
}
