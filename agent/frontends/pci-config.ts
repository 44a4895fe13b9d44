/**
 * The configuration space of a PCI device, read through sysfs. Every read is a question to dom0's xen-pciback,
 * which our kernel waits for without giving the processor up, up to 2 s: so as few bytes as possible are read.
 */
import { type Descriptors, SystemError } from "../platform/port.ts";
import { formatPciAddress, type PciAddress } from "./pci-address.ts";

/** Reads `length` bytes (1 to 4) at `offset`, least significant first. */
export type ConfigRead = (offset: number, length: number) => number;

export function sysfsDevice(local: PciAddress): string {
  return `/sys/bus/pci/devices/${formatPciAddress(local)}`;
}

/**
 * Calls `use` with the means to read the device's configuration space; `undefined` when Linux shows no such
 * device (any more). Throws `SystemError`, and `EIO` for what cannot be read whole.
 */
export function withConfigSpace<T>(
  descriptors: Descriptors,
  local: PciAddress,
  use: (read: ConfigRead) => T,
): T | undefined {
  const path = `${sysfsDevice(local)}/config`;
  let fd: number;
  try {
    fd = descriptors.open(path, { access: "read" });
  } catch (error) {
    if (error instanceof SystemError && (error.code === "ENOENT" || error.code === "ENODEV"))
      return undefined;
    throw error;
  }
  try {
    return use((offset, length) => {
      const bytes = new Uint8Array(length);
      descriptors.seek(fd, offset);
      if (descriptors.read(fd, bytes) !== length) throw new SystemError("EIO", "read", path);
      return bytes.reduceRight((value, byte) => value * 256 + byte, 0);
    });
  } finally {
    descriptors.close(fd);
  }
}

export interface PciIdentity {
  /** 0xffff: nobody answers, which no vendor has. */
  readonly vendor: number;
  readonly device: number;
}

export function readIdentity(read: ConfigRead): PciIdentity {
  const both = read(0, 4);
  return { vendor: both & 0xffff, device: both >>> 16 };
}

export const capabilityMsi = 0x05;
export const capabilityMsix = 0x11;

/** Most capabilities that fit into 192 bytes, at 4 bytes each: a longer chain runs in a circle. */
const mostCapabilities = 48;

/** Ids of the device's capabilities (PCI 3.0, 6.7), in the order of the chain; what is broken ends it. */
export function readCapabilities(read: ConfigRead): number[] {
  const hasChain = (read(0x06, 2) & 0x10) !== 0;
  const found: number[] = [];
  let at = hasChain ? read(0x34, 1) & 0xfc : 0;
  while (at >= 0x40 && found.length < mostCapabilities) {
    const head = read(at, 2);
    if (head === 0xffff) break;
    found.push(head & 0xff);
    at = (head >>> 8) & 0xfc;
  }
  return found;
}
