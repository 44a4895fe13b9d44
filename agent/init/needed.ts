import { type BlockFrontend, linuxBlockName } from "../frontends/block.ts";
import type { Frontends } from "../frontends/discover.ts";
import type { Frontend } from "../frontends/xenbus.ts";
import { type DmArguments, serialPorts } from "../qemu/dm-argv.ts";
import { stateDevice } from "../savestate/state-device.ts";
import { BootError } from "./errors.ts";

/** IDE's; libxl gives CD drives no other place, and leaves out those behind the fifth. */
const cdDrives = 4;

/**
 * The frontends without which QEMU cannot be started with these arguments: what it opens by name, and the
 * NICs that its TAP devices are joined to. libxl gives a stub domain more than that, PV disks beyond QEMU's
 * four for instance, which the guest reaches by itself.
 *
 * @throws BootError when the arguments name a device that the stub domain was not given, or when two disks are one
 *   to Linux, or one has the state disk's name
 */
export function neededFrontends(found: Frontends, dm: DmArguments): Frontend[] {
  refuseNames(found.disks);
  const disks = dm.disks.map((device) => {
    const part = found.disks.find((disk) => disk.device !== device && wholeDisk(disk) === device);
    return present(
      found.disks.find((disk) => disk.device === device),
      `disk ${device}`,
      `device/vbd holds ${list(found.disks)}`,
      part && `name the whole disk in disk=, ${part.vdev.replace(/[0-9]+$/, "")}, and not ${part.vdev}`,
    );
  });
  const nics = dm.nics.map(({ devid, mac }) =>
    present(
      found.nics.find((nic) => nic.id === devid),
      `NIC ${devid} (${mac})`,
      `device/vif holds ${list(found.nics)}`,
    ),
  );
  const serials = dm.serials.map((device) =>
    present(
      found.consoles.find((console) => console.device === device),
      `serial port ${device}`,
      `device/console holds ${list(found.consoles)}`,
    ),
  );
  return [...disks, ...nics, ...serials].filter(({ awaited }) => awaited);
}

/** libxl names it in QEMU's arguments whatever part of it the guest's configuration names. */
function wholeDisk({ virtualDevice }: BlockFrontend): string {
  return `/dev/${linuxBlockName({ ...virtualDevice, partition: 0 })}`;
}

/**
 * Linux has one `xvdb` for hdb, sdb and xvdb, and refuses the second that comes (`xlvbd_add` fails with EBUSY), which
 * may be either; libxl names both `/dev/xvdb` in QEMU's arguments as well. The state disk, which would be one more, is
 * attached later.
 */
function refuseNames(disks: readonly BlockFrontend[]): void {
  for (const [n, disk] of disks.entries()) {
    if (disk.id === stateDevice.number)
      throw new BootError(
        `${disk.label} (${disk.path}) has the name of the disk over which dom0 saves and restores a guest`,
        "give it another name in disk= of the guest's configuration",
      );
    const other = disks.slice(0, n).find(({ device }) => device === disk.device);
    if (other === undefined) continue;
    throw new BootError(
      `${other.label} (${other.path}) and ${disk.label} (${disk.path}) are both ${disk.device} in a stub domain`,
      "give one of them another last letter in disk= of the guest's configuration: sde is beside hda to hdd",
    );
  }
}

/**
 * What the log says about disks that the guest has and QEMU does not emulate: libxl leaves out of its arguments
 * what no emulated controller has a place for, and says so in a log of dom0's alone.
 */
export function unemulatedDisks(found: Frontends, dm: DmArguments): string[] {
  const left = found.disks.filter(({ device, empty, virtualDevice }) =>
    // QEMU's arguments name no file for an empty drive: a place among the four has one all the same.
    empty ? virtualDevice.disk >= cdDrives : !dm.disks.includes(device),
  );
  return left.map(
    ({ label, path }) =>
      `${label} (${path}) is not emulated: QEMU has hda to hdd, with hdtype="ahci" xvde and xvdf for disks too, and sda to sdg for SCSI; the guest reaches it with PV drivers alone, and only if dom0's kernel serves it (format=raw, backendtype=phy)`,
  );
}

/** What the log says about serial ports beyond those that a PC has: QEMU would take the rest of the list without a word. */
export function unemulatedSerials(dm: DmArguments): string[] {
  return dm.surplusSerials.map(
    (device) =>
      `${device} is no serial port of the guest's: QEMU has ${serialPorts} of them; shorten serial= in the guest's configuration`,
  );
}

function present<T extends Frontend>(
  frontend: T | undefined,
  what: string,
  instead: string,
  remedy = "name devices in disk=, vif= and serial= of the guest's configuration, not in device_model_args_hvm",
): T {
  if (frontend !== undefined) return frontend;
  throw new BootError(
    `QEMU's arguments name ${what}, which this stub domain was not given (${instead})`,
    remedy,
  );
}

function list(frontends: readonly Frontend[]): string {
  return frontends.length === 0 ? "none" : frontends.map(({ label }) => label).join(", ");
}
