/**
 * What all PV devices of a domain have in common (xen/include/public/io/xenbus.h): a frontend's directory in
 * the domain's own tree, which names its backend's, and a state on each side that says how far they are.
 */
import type { FileSystem } from "../platform/port.ts";
import type { Operations } from "../xenstore/operations.ts";
import { BadNode } from "./errors.ts";

export const XenbusState = {
  Unknown: 0,
  Initialising: 1,
  InitWait: 2,
  Initialised: 3,
  Connected: 4,
  Closing: 5,
  Closed: 6,
  Reconfiguring: 7,
  Reconfigured: 8,
} as const;

const stateNames = Object.keys(XenbusState);

/** `3 (Initialised)`, or `missing`. */
export function stateText(state: number | undefined): string {
  if (state === undefined) return "missing";
  return `${state} (${stateNames[state] ?? "no such state"})`;
}

/** `undefined` stays so: a device that is being removed has no state any more. */
export function parseState(node: string, value: string | undefined): number | undefined {
  return value === undefined ? undefined : parseNumber(node, value, stateNames.length - 1);
}

/**
 * One PV device as its kind knows it; each kind is a class, made from the number alone or, where more has to be known, by
 * a static `read(store, id)` that throws {@link BadNode} for what cannot be.
 */
export interface Frontend {
  /** As in xenstore: `vbd`, `vif`, `vfb`, `vkbd`, `pci`, `console`. */
  readonly kind: string;
  /** The last part of {@link path}. */
  readonly id: number;
  /** Relative to the stub domain's own tree, without a final slash: `device/vbd/768`. */
  readonly path: string;
  /** For people: `disk hda`. */
  readonly label: string;
  /** False for what will never connect, and need not: an empty CD drive, a console without an end in dom0. */
  readonly awaited: boolean;
  /** False when QEMU can do without it: the screen. */
  readonly essential: boolean;
  /** What Linux made of it, `/dev/xvda` or `eth0`; empty while it has not. Looks at sysfs, does not wait. */
  linuxDevices(files: FileSystem): readonly string[];
  /** What to do when it stops short, seen the states of both sides and the backend's path. */
  remedy(frontendState: number | undefined, backendState: number | undefined, backend: string): string;
}

/** A device's other side. */
export interface Backend {
  /** Its directory, an absolute path. */
  readonly path: string;
  readonly domid: number;
}

/**
 * Reads `names` below `path`, all at once; a missing node gives `undefined`. One round trip, whatever the
 * number.
 */
export async function readNodes<Name extends string>(
  store: Operations,
  path: string,
  names: readonly Name[],
): Promise<Record<Name, string | undefined>> {
  const values = await Promise.all(names.map((name) => store.tryReadText(`${path}/${name}`)));
  return Object.fromEntries(names.map((name, index) => [name, values[index]])) as Record<
    Name,
    string | undefined
  >;
}

/**
 * The backend that the frontend at `path` names; its domid is part of its path. Linux finds it by itself: it is asked for
 * where more is to be known than whether the device is connected. Throws {@link BadNode}.
 */
export async function readBackend(store: Operations, path: string): Promise<Backend> {
  const node = `${path}/backend`;
  return parseBackend(node, await store.tryReadText(node));
}

/** @throws BadNode */
export function parseBackend(node: string, backend: string | undefined): Backend {
  const match = /^\/local\/domain\/(0|[1-9][0-9]{0,4})\/[A-Za-z0-9\-_@/]+$/.exec(backend ?? "");
  const domid = Number(match?.[1]);
  if (backend === undefined || match === null || domid > 0x7fef) {
    throw new BadNode(node, backend, "/local/domain/<domid>/backend/...");
  }
  return { path: backend, domid };
}

/** A decimal number without sign or leading zeros. */
export function parseNumber(node: string, value: string | undefined, most: number): number {
  if (value === undefined || !/^(0|[1-9][0-9]{0,9})$/.test(value) || Number(value) > most) {
    throw new BadNode(node, value, `a number up to ${most}`);
  }
  return Number(value);
}

/** Names in a directory of sysfs that need not be there. */
export function namesIn(files: FileSystem, directory: string): readonly string[] {
  return files.exists(directory) ? files.readDirectory(directory) : [];
}

const xenstoreRemedy = "see `xenstore-ls` in dom0";

/** A remedy from the backend's state alone; `service` is what in dom0 serves this kind. */
export function backendRemedy(backendState: number | undefined, service: string): string {
  switch (backendState) {
    case undefined:
      return `the backend is gone: the device was detached in dom0, or its setup failed; ${xenstoreRemedy}`;
    case XenbusState.Initialising:
      return `nothing in the backend domain has taken it up: check that ${service}`;
    case XenbusState.InitWait:
      return "the backend waits for its hotplug script in dom0, or our kernel lacks the frontend: see /var/log/xen/xen-hotplug.log in dom0";
    case XenbusState.Closing:
    case XenbusState.Closed:
      return "the backend has closed: see dom0's kernel log and /var/log/xen/xen-hotplug.log";
    default:
      return `the two sides do not agree; ${xenstoreRemedy}, and the kernel's messages on both sides`;
  }
}
