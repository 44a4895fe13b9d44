/** Disks and CD drives: `device/vbd/<number>`. */
import type { FileSystem } from "../platform/port.ts";
import { isOutOfSight } from "../xenstore/errors.ts";
import type { Operations } from "../xenstore/operations.ts";
import { BadNode } from "./errors.ts";
import { backendRemedy, type Frontend, readBackend, readNodes } from "./xenbus.ts";

export interface VirtualDevice {
  /** The nominal interface. All three kinds appear in Linux as xvd*. */
  readonly scheme: "xvd" | "sd" | "hd";
  /** From 0. */
  readonly disk: number;
  /** 0 is the whole disk. */
  readonly partition: number;
}

/**
 * The number by which a vbd is known, as xen-vbd-interface(7) encodes it:
 *
 *     1 << 28 | disk << 8 | partition       xvd, disks or partitions from 16
 *     202 << 8 | disk << 4 | partition      xvd
 *       8 << 8 | disk << 4 | partition      sd
 *       3 << 8 | disk << 6 | partition      hd, disks 0 and 1
 *      22 << 8 | disk - 2 << 6 | partition  hd, disks 2 and 3
 *
 * `undefined` for every other number: reserved, or deprecated.
 */
export function decodeVirtualDevice(number: number): VirtualDevice | undefined {
  if (number >>> 28 === 1) {
    return { scheme: "xvd", disk: (number & 0x0fff_ffff) >>> 8, partition: number & 0xff };
  }
  const minor = number & 0xff;
  switch (number >>> 8) {
    case 202:
      return { scheme: "xvd", disk: minor >>> 4, partition: minor & 15 };
    case 8:
      return { scheme: "sd", disk: minor >>> 4, partition: minor & 15 };
    case 3:
    case 22: {
      // Two disks to a channel; minors from 128 belong to none.
      if (minor >= 128) return undefined;
      return { scheme: "hd", disk: (minor >>> 6) + (number >>> 8 === 22 ? 2 : 0), partition: minor & 63 };
    }
    default:
      return undefined;
  }
}

/**
 * Linux's name of the disk, `xvda`: its blkfront names all kinds so, and shows a partition of an hd disk
 * under the name of the whole (drivers/block/xen-blkfront.c, xen_translate_vdev).
 */
export function linuxBlockName({ scheme, disk, partition }: VirtualDevice): string {
  let letters = "";
  for (let rest = disk; rest >= 0; rest = Math.floor(rest / 26) - 1) {
    letters = String.fromCharCode(97 + (rest % 26)) + letters;
  }
  return `xvd${letters}${partition === 0 || scheme === "hd" ? "" : partition}`;
}

function pathOf(id: number): string {
  return `device/vbd/${id}`;
}

export class BlockFrontend implements Frontend {
  readonly kind = "vbd";
  readonly essential = true;

  private constructor(
    readonly id: number,
    readonly virtualDevice: VirtualDevice,
    readonly cdrom: boolean,
    /** A CD drive without a disc. */
    readonly empty: boolean,
  ) {}

  get path(): string {
    return pathOf(this.id);
  }

  /** `xvda`. */
  get linuxName(): string {
    return linuxBlockName(this.virtualDevice);
  }

  /** The device node, `/dev/xvda`. */
  get device(): string {
    return `/dev/${this.linuxName}`;
  }

  /** The name in the guest's configuration, `hda`. */
  get vdev(): string {
    return this.linuxName.replace("xvd", this.virtualDevice.scheme);
  }

  get label(): string {
    return `${this.cdrom ? "CD drive" : "disk"} ${this.vdev}`;
  }

  /**
   * An empty drive is not waited for. With a qdisk backend it never leaves state 1 (dom0's QEMU cannot open
   * a file without a name), with a block device there is a loop device over an empty file; in both cases
   * QEMU's arguments name no file for it.
   */
  get awaited(): boolean {
    return !this.empty;
  }

  static async read(store: Operations, id: number): Promise<BlockFrontend> {
    const path = pathOf(id);
    const type = (await store.tryReadText(`${path}/device-type`)) ?? "disk";
    // libxl names the directory by it; `virtual-device` in there is the same number.
    const virtualDevice = decodeVirtualDevice(id);
    if (virtualDevice === undefined) {
      throw new BadNode(
        path,
        String(id),
        "the number of an xvd, sd or hd disk",
        "name the disk xvda, sda or hda in the guest's configuration",
      );
    }
    if (type !== "disk" && type !== "cdrom") {
      throw new BadNode(`${path}/device-type`, type, `"disk" or "cdrom"`);
    }
    const cdrom = type === "cdrom";
    return new BlockFrontend(id, virtualDevice, cdrom, cdrom && (await isEmptyDrive(store, path)));
  }

  /** The node itself: sysfs shows the disk a moment before devtmpfs has it. */
  linuxDevices(files: FileSystem): readonly string[] {
    return files.exists(this.device) ? [this.device] : [];
  }

  remedy(_frontendState: number | undefined, backendState: number | undefined, backend: string): string {
    const service = backend.includes("/qdisk/")
      ? `dom0's QEMU for the stub domain runs and can open the image (/var/log/xen/qemu-dm-*.log there)${this.cdrom ? ", and, where the drive was empty, that `stubdom dom0 serve` runs there" : ""}`
      : "xen-blkback is loaded in the backend domain and the hotplug scripts run (udev or xl devd)";
    return backendRemedy(backendState, service);
  }
}

/**
 * The CD drive with this number, `undefined` when there is another disk or none: a running domain's may go at
 * any time, also while it is being read. Throws {@link BadNode} and {@link XenstoreFailure}.
 */
export async function readCdDrive(store: Operations, id: number): Promise<BlockFrontend | undefined> {
  const path = pathOf(id);
  if ((await store.tryReadText(`${path}/device-type`)) !== "cdrom") return undefined;
  try {
    return await BlockFrontend.read(store, id);
  } catch (error) {
    // The backend goes before it has been read, or all of the drive.
    if (isOutOfSight(error)) return undefined;
    const gone = error instanceof BadNode && (await store.tryReadText(`${path}/backend`)) === undefined;
    if (gone) return undefined;
    throw error;
  }
}

async function isEmptyDrive(store: Operations, path: string): Promise<boolean> {
  const { path: backend } = await readBackend(store, path);
  const { mode, params } = await readNodes(store, backend, ["mode", "params"]);
  // Every backend has it, so that one that is just being removed is not taken for an empty drive's.
  if (mode !== "r" && mode !== "w") throw new BadNode(`${backend}/mode`, mode, `"r" or "w"`);
  return isEmptyMedium(params);
}

/**
 * Whether `params` of a CD drive's backend stands for no medium. libxl writes for an empty drive: `aio:` with
 * nothing behind it (qdisk), no node at all (block device, Xen 4.17), or the path of a file kept empty for
 * the purpose, `<run directory>/empty-cdrom.<domid>` (block device, Xen 4.20).
 */
export function isEmptyMedium(params: string | undefined): boolean {
  return params === undefined || /^([a-z0-9]+:)?$/.test(params) || /\/empty-cdrom\.[0-9]+$/.test(params);
}
