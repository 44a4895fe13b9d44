/** How the helper in dom0 was configured; sizes in bytes. */
export interface HelperSettings {
  /** Where state disks are kept, as nameless files. */
  readonly directory: string;
  /** Largest state disk of one stub domain. */
  readonly limit: number;
  /** What must stay free on every file system that the helper writes to. */
  readonly keepFree: number;
  /** Block devices to be used in place of files, one stub domain at a time each. */
  readonly devices: readonly string[];
  /** Where libxl looks for `qemu-save.T` and puts `qemu-resume.T`. */
  readonly xenDirectory: string;
  /** A stub domain that holds a disk and asks nothing for so long loses it, in milliseconds. */
  readonly idleLimit: number;
  /**
   * Whether guests are started from QEMU's bare state with nothing behind it to check it by, and from a framed one that
   * names another guest.
   */
  readonly acceptUnchecked: boolean;
}

export const defaultSettings: HelperSettings = {
  directory: "/var/lib/linux-stubdom",
  limit: 256 * 1024 * 1024,
  keepFree: 64 * 1024 * 1024,
  devices: [],
  xenDirectory: "/var/lib/xen",
  idleLimit: 300_000,
  acceptUnchecked: false,
};

export function savePath({ xenDirectory }: HelperSettings, target: number): string {
  return `${xenDirectory}/qemu-save.${target}`;
}

/** Never a name that libxl, or another program, would use. */
export function unfinishedSavePath({ xenDirectory }: HelperSettings, target: number): string {
  return `${xenDirectory}/.linux-stubdom-save.${target}`;
}

export const unfinishedSave = /^\.linux-stubdom-save\.\d+$/;

export function resumePath({ xenDirectory }: HelperSettings, target: number): string {
  return `${xenDirectory}/qemu-resume.${target}`;
}
