/** Writer of the "newc" cpio format, as Linux unpacks it into its first root file system. */

export interface CpioEntry {
  /** Without a leading slash. Directories come before what is in them. */
  readonly path: string;
  /** File type and permission bits, as in `st_mode`. */
  readonly mode: number;
  readonly data?: Uint8Array;
}

export const DIRECTORY = 0o040755;
export const EXECUTABLE = 0o100755;
export const REGULAR = 0o100644;
export const SYMLINK = 0o120777;

/** Kernel's Documentation/driver-api/early-userspace/buffer-format.rst: magic, then 13 fields of 8 hex digits. */
function header(entry: CpioEntry, inode: number): Buffer {
  const size = entry.data?.length ?? 0;
  const name = Buffer.from(`${entry.path}\0`);
  const links = 1;
  const fields = [inode, entry.mode, 0, 0, links, 0, size, 0, 0, 0, 0, name.length, 0];
  const text = fields.map((field) => field.toString(16).padStart(8, "0")).join("");
  return pad(Buffer.concat([Buffer.from(`070701${text}`), name]));
}

/** Everything in the archive starts at a multiple of 4 bytes. */
function pad(data: Uint8Array): Buffer {
  return Buffer.concat([data, Buffer.alloc((4 - (data.length % 4)) % 4)]);
}

/** The archive of these entries: times and owners are 0, inode numbers follow the order. */
export function cpio(entries: readonly CpioEntry[]): Buffer {
  const parts: Buffer[] = [];
  entries.forEach((entry, index) => {
    parts.push(header(entry, index + 1));
    if (entry.data !== undefined) parts.push(pad(entry.data));
  });
  parts.push(header({ path: "TRAILER!!!", mode: 0 }, 0));
  return Buffer.concat(parts);
}
