/** Which PV devices libxl gave this stub domain. */
import type { Operations } from "../xenstore/operations.ts";
import { BlockFrontend } from "./block.ts";
import { ConsoleFrontend, lastConsole } from "./console.ts";
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
const mostNumber = 0x7fff_ffff;

/**
 * Reads what somebody needs of each, in a few round trips however many there are; a request costs a boot more than it
 * looks. Throws {@link BadNode} for the first one that cannot be, and {@link XenstoreFailure}.
 */
export async function discoverFrontends(store: Operations): Promise<Frontends> {
  const kinds = await store.tryDirectory("device");
  const readKind = <T extends Frontend>(kind: string, read: Read<T>, first = 0, last = mostNumber) =>
    kinds.includes(kind) ? readAll(store, kind, read, first, last) : [];
  const [disks, nics, framebuffers, keyboards, pci, consoles] = await Promise.all([
    readKind("vbd", BlockFrontend.read),
    readKind("vif", async (_, id) => new NicFrontend(id)),
    readKind("vfb", async (_, id) => new FramebufferFrontend(id)),
    readKind("vkbd", async (_, id) => new KeyboardFrontend(id)),
    readKind("pci", PciFrontend.read),
    // Linux takes no device/console/0 for a console either, and has no terminal for those behind the last.
    readKind("console", async (_, id) => new ConsoleFrontend(id), 1, lastConsole),
  ]);
  return { disks, nics, framebuffers, keyboards, pci, consoles: [new ConsoleFrontend(0), ...consoles] };
}

type Read<T> = (store: Operations, id: number) => Promise<T>;

async function readAll<T extends Frontend>(
  store: Operations,
  kind: string,
  read: Read<T>,
  first: number,
  last: number,
): Promise<readonly T[]> {
  const directory = `device/${kind}`;
  const names = await store.tryDirectory(directory);
  if (names.length > mostOfAKind) {
    throw new BadNode(directory, `${names.length} devices`, `at most ${mostOfAKind}`);
  }
  const ids = names.map((name) => parseNumber(`${directory}/${name}`, name, mostNumber));
  ids.sort((a, b) => a - b);
  return Promise.all(ids.filter((id) => id >= first && id <= last).map((id) => read(store, id)));
}
