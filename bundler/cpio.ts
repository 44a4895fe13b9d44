/** Writer of the "newc" cpio format, as Linux unpacks it into its first root file system. */

export interface CpioEntry {
  /** Without a leading slash. Directories come before what is in them. */
  readonly path: string;
  /** File type and permission bits, as in `st_mode`. */
  readonly mode: number;
  /** A regular file's bytes, or where a symbolic link leads. */
  readonly data?: Uint8Array;
  /** Major and minor number of a device. */
  readonly device?: readonly [major: number, minor: number];
}

export const DIRECTORY = 0o040755;
export const EXECUTABLE = 0o100755;
export const REGULAR = 0o100644;
export const SYMLINK = 0o120777;
export const CHARACTER_DEVICE = 0o020600;

/** Everything in the archive starts at a multiple of 4 bytes. */
function pad(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc((4 - (data.length % 4)) % 4)]);
}

/**
 * The header of an entry and its name, by the kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst: the magic, then 13 fields of 8 hex digits:
 * ino mode uid gid nlink mtime filesize maj min rmaj rmin namesize chksum.
 */
function header(entry: CpioEntry, inode: number): Buffer {
  const name = Buffer.from(`${entry.path}\0`);
  const [major, minor] = entry.device ?? [0, 0];
  const fields = [inode, entry.mode, 0, 0, 1, 0, entry.data?.length ?? 0, 0, 0, major, minor, name.length, 0];
  const text = fields.map((field) => field.toString(16).padStart(8, "0")).join("");
  return pad(Buffer.concat([Buffer.from(`070701${text}`), name]));
}

/** The archive of these entries: times and owners are 0, inode numbers follow the order. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts = entries.flatMap((entry, index) => [
    header(entry, index + 1),
    pad(entry.data ?? new Uint8Array()),
  ]);
  return Buffer.concat([...parts, header({ path: "TRAILER!!!", mode: 0 }, 0)]);
}
