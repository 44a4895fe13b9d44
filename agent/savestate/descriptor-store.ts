import { type Platform, SystemError } from "../platform/port.ts";
import type { BlockStore } from "./disk.ts";
import { StateSpaceError, TransferError } from "./errors.ts";

export interface StoreOptions {
  /** Makes what is behind the descriptor at least so large; without it, it stays as it is. */
  readonly enlarge?: (size: number) => Promise<void>;
  /**
   * What is there is taken over by another reader of the same host, and of no use after that host's end: nothing is
   * flushed.
   */
  readonly transient?: boolean;
}

/**
 * A {@link BlockStore} over a descriptor of a file or block device, which it owns. What another thread reads and writes
 * knows the descriptor by its number alone, which must not be somebody else's by then: so it is closed once nothing is
 * under way.
 */
export class DescriptorStore implements BlockStore {
  #closed = false;
  #underWay = 0;

  constructor(
    private readonly platform: Pick<Platform, "descriptors" | "storage">,
    readonly fd: number,
    private readonly options: StoreOptions = {},
  ) {}

  get size(): number {
    return this.platform.descriptors.size(this.fd);
  }

  read(offset: number, into: Uint8Array): Promise<number> {
    return this.#follow(`read byte ${offset} of the state disk`, () =>
      this.platform.storage.readAt(this.fd, into, offset),
    );
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#follow(`write byte ${offset} of the state disk`, () =>
      this.platform.storage.writeAt(this.fd, from, offset),
    );
  }

  async flush(): Promise<void> {
    if (this.options.transient) return;
    await this.#follow("flush the state disk", () => this.platform.storage.sync(this.fd));
  }

  async grow(size: number): Promise<void> {
    const { enlarge } = this.options;
    if (enlarge === undefined) throw new StateSpaceError("it cannot grow");
    await enlarge(size);
    if (this.size < size) throw new StateSpaceError(`it has ${this.size} bytes, ${size} are needed`);
  }

  buffer(size: number): Uint8Array {
    return this.platform.storage.buffer(size);
  }

  /** Idempotent; takes nothing any more. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#underWay === 0) this.platform.descriptors.close(this.fd);
  }

  /** @throws TransferError */
  async #follow<T>(what: string, operation: () => Promise<T>): Promise<T> {
    if (this.#closed) throw new SystemError("EBADF", "use", "a state disk that is closed");
    this.#underWay += 1;
    try {
      return await operation();
    } catch (error) {
      if (!(error instanceof SystemError)) throw error;
      throw new TransferError(`cannot ${what}: ${error.code}; see dom0's kernel log about what is behind it`);
    } finally {
      this.#underWay -= 1;
      if (this.#closed && this.#underWay === 0) this.platform.descriptors.close(this.fd);
    }
  }
}
