import type { Logger } from "../log/logger.ts";
import { type Platform, SystemError } from "../platform/port.ts";
import { DescriptorStore } from "../savestate/descriptor-store.ts";
import { StateSpaceError, TransferError } from "../savestate/errors.ts";
import { blockSize, firstExtent } from "../savestate/format.ts";
import type { HelperSettings } from "./settings.ts";

/** What a state disk is kept on, and the block device that a backend can offer. */
export interface Backing {
  readonly store: DescriptorStore;
  readonly major: number;
  readonly minor: number;
  /** In bytes, as far as it goes now. */
  readonly size: number;
  /** @returns the size then. @throws StateSpaceError */
  grow(bytes: number): number;
  /** Idempotent. Nothing of it is left, once its last user has closed it too. */
  close(): void;
}

const mebibyte = 1024 * 1024;
/** A file's size, where there is room for so much: sparse, so it costs nothing, and most states never need more. */
const firstSize = 16 * mebibyte;

/** Makes backings, and keeps all of them together within what the settings allow. */
export class BackingPool {
  readonly #files = new Set<FileBacking>();
  readonly #busyDevices = new Set<string>();
  /** Devices of which it was said that they are no use: once each, however often they are asked for. */
  readonly #told = new Set<string>();
  /** Bytes that are about to be written elsewhere than on a backing, perhaps to the same file system. */
  #reserved = 0;

  constructor(
    private readonly platform: Platform,
    private readonly settings: HelperSettings,
    private readonly log: Pick<Logger, "warn">,
  ) {}

  /**
   * Makes a backing before anybody needs one, or looks at the devices, and says what is wrong with them.
   *
   * @throws TransferError when there could be no backing at all
   */
  check(): void {
    const { devices, limit } = this.settings;
    // Without a byte in it: a file system that is full is so for now.
    if (devices.length === 0) this.#file(0).close();
    for (const path of devices) {
      try {
        const backing = this.#device(path, 0);
        backing.close();
        // libxl waits 30 s for a guest that is restored.
        if (backing.size > limit)
          this.log.warn(
            {},
            `${path} has ${backing.size} bytes, all of which are zeroed each time: no state takes more than ${limit} (--limit), and a smaller device saves the time`,
          );
      } catch (error) {
        this.#tell(path, error);
      }
    }
  }

  /**
   * One with nothing but zeros on it. A device that is of no use is no reason to go without, while there is another.
   *
   * @throws StateSpaceError, TransferError, SystemError
   */
  async make(bytes: number): Promise<Backing> {
    const { devices } = this.settings;
    if (devices.length === 0) return this.#file(bytes);
    let failure: unknown;
    for (const path of devices) {
      if (this.#busyDevices.has(path)) continue;
      try {
        return await this.#cleared(path, bytes);
      } catch (error) {
        failure = error;
        if (!(error instanceof StateSpaceError)) this.#tell(path, error);
      }
    }
    throw failure ?? new StateSpaceError("every block device for state is in use; name one more --device");
  }

  /**
   * Sets `bytes` in `directory` aside for a file that is no backing. What of it is written counts twice until it is given
   * back, which is to be done once. The backings may be on the same file system: all of them but `from`, which is done
   * with, keep what they were granted.
   *
   * @returns gives it back
   * @throws StateSpaceError
   */
  reserve(directory: string, bytes: number, from?: DescriptorStore): () => void {
    const granted = this.#taken() - (this.#of(from)?.size ?? 0);
    const left = this.platform.storage.freeSpace(directory) - this.settings.keepFree - granted;
    if (bytes > left)
      throw new StateSpaceError(
        `${directory} has ${Math.max(0, left)} bytes left for ${bytes}; make room there, or lower the helper's --keep-free`,
      );
    this.#reserved += bytes;
    return () => {
      this.#reserved -= bytes;
    };
  }

  #of(store: DescriptorStore | undefined): FileBacking | undefined {
    return [...this.#files].find((file) => file.store === store);
  }

  /** A sparse file's missing blocks count as taken, so that all of them can be filled at once. */
  #taken(): number {
    return [...this.#files].reduce((sum, file) => sum + file.size, this.#reserved);
  }

  #file(bytes: number): Backing {
    const { platform, settings } = this;
    const backing = new FileBacking(platform, settings.directory, (wanted, had) =>
      this.#granted(wanted, had),
    );
    this.#files.add(backing);
    backing.closed = () => void this.#files.delete(backing);
    try {
      backing.grow(bytes);
      backing.attachLoop();
      return backing;
    } catch (error) {
      backing.close();
      throw error;
    }
  }

  /** The size for a file that must have `wanted` bytes: twice that, to be asked less often, as far as the limits let it. */
  #granted(wanted: number, had: number): number {
    const { directory, limit, keepFree } = this.settings;
    if (wanted > limit) {
      throw new StateSpaceError(
        `${wanted} bytes are needed, the limit for one stub domain is ${limit}; raise the helper's --limit`,
      );
    }
    const left = this.platform.storage.freeSpace(directory) - keepFree - (this.#taken() - had);
    if (wanted > left) {
      throw new StateSpaceError(
        `${wanted} bytes are needed, ${directory} has ${Math.max(0, left)} left for state; make room there, or lower the helper's --keep-free, or give it a --device`,
      );
    }
    const generous = Math.min(Math.max(2 * wanted, firstSize), limit, left);
    return Math.max(wanted, Math.floor(generous / mebibyte) * mebibyte);
  }

  async #cleared(path: string, bytes: number): Promise<Backing> {
    const backing = this.#device(path, bytes);
    try {
      await backing.clear();
      this.#told.delete(path);
      return backing;
    } catch (error) {
      backing.close();
      throw error;
    }
  }

  #device(path: string, bytes: number): DeviceBacking {
    const least = Math.max(bytes, firstExtent + 2 * blockSize);
    const backing = new DeviceBacking(this.platform, path, () => void this.#busyDevices.delete(path));
    this.#busyDevices.add(path);
    const { size } = backing;
    if (size >= least) return backing;
    backing.close();
    throw new StateSpaceError(`${path} has ${size} bytes, ${least} are needed; name a larger --device`);
  }

  #tell(path: string, error: unknown): void {
    if (this.#told.has(path)) return;
    this.#told.add(path);
    const reason = error instanceof Error ? error.message : String(error);
    // The others say themselves what to do.
    const remedy =
      error instanceof SystemError ? "; see dom0's kernel log, and that nothing else uses it" : "";
    this.log.warn({}, `${path} is passed over for state disks: ${reason}${remedy}`);
  }
}

/** What `act` gives. @throws TransferError with what to do where a call of the system's failed */
function orElse<T>(remedy: string, act: () => T): T {
  try {
    return act();
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new TransferError(`${error.message}; ${remedy}, or give the helper a --device for state disks`);
  }
}

/** A nameless file behind a loop device that goes with its last user: a killed helper leaves neither. */
class FileBacking implements Backing {
  readonly store: DescriptorStore;
  closed: () => void = () => {};
  #loop: { readonly fd: number; readonly major: number; readonly minor: number } | undefined;
  #size = 0;
  #open = true;

  constructor(
    private readonly platform: Platform,
    directory: string,
    private readonly granted: (wanted: number, had: number) => number,
  ) {
    const fd = orElse("name another --directory", () => platform.storage.openTemporary(directory));
    this.store = new DescriptorStore(platform, fd, {
      enlarge: async (bytes) => void this.grow(bytes),
      transient: true,
    });
  }

  get major(): number {
    return this.#loop?.major ?? 0;
  }

  get minor(): number {
    return this.#loop?.minor ?? 0;
  }

  get size(): number {
    return this.#size;
  }

  attachLoop(): void {
    const { storage } = this.platform;
    this.#loop = orElse("see that dom0 has loop devices (modprobe loop)", () =>
      storage.attachLoop(this.store.fd, false),
    );
  }

  grow(bytes: number): number {
    if (bytes <= this.#size) return this.#size;
    const size = Math.ceil(this.granted(bytes, this.#size) / blockSize) * blockSize;
    this.platform.storage.truncate(this.store.fd, size);
    this.#size = size;
    if (this.#loop !== undefined) this.platform.storage.resizeLoop(this.#loop.fd);
    return size;
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    if (this.#loop !== undefined) this.platform.descriptors.close(this.#loop.fd);
    this.store.close();
    this.closed();
  }
}

/** A block device that somebody set aside, an LVM volume perhaps. Its size is its size. */
class DeviceBacking implements Backing {
  readonly store: DescriptorStore;
  readonly major: number;
  readonly minor: number;
  readonly size: number;
  #open = true;

  constructor(
    platform: Platform,
    private readonly path: string,
    private readonly closed: () => void,
  ) {
    // Direct: the backend writes past the page cache, which would show what was there before.
    // Exclusive: what is mounted, or somebody's physical volume, is refused, and not cleared. A backend's own use is no hindrance.
    const fd = platform.descriptors.open(path, { access: "read-write", direct: true, exclusive: true });
    try {
      const { major, minor } = platform.storage.deviceNumber(fd);
      this.major = major;
      this.minor = minor;
    } catch (error) {
      platform.descriptors.close(fd);
      throw new TransferError(`${path}: ${String(error)}; name a block device`);
    }
    this.store = new DescriptorStore(platform, fd, { transient: true });
    this.size = this.store.size;
  }

  /**
   * Another stub domain wrote here before: what it left would lead the next writer where it likes, and its state is nobody
   * else's to read. A large device takes its time.
   */
  async clear(): Promise<void> {
    const zeros = this.store.buffer(Math.min(mebibyte, this.size));
    for (let offset = 0; offset < this.size; offset += zeros.length) {
      await this.store.write(offset, zeros.subarray(0, Math.min(zeros.length, this.size - offset)));
    }
  }

  grow(bytes: number): number {
    if (bytes <= this.size) return this.size;
    throw new StateSpaceError(
      `${bytes} bytes are needed, ${this.path} has ${this.size}; name a larger --device`,
    );
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.store.close();
    this.closed();
  }
}
