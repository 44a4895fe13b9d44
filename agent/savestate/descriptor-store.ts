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
  /** Milliseconds after which a read or write that has not ended has failed. */
  readonly deadline?: number;
}

/**
 * A {@link BlockStore} over a descriptor of a file or block device, which it owns. What another thread reads and writes
 * knows the descriptor by its number alone, which must not be somebody else's by then: so it is closed once nothing is
 * under way, which one that was given up still is.
 */
export class DescriptorStore implements BlockStore {
  #closed = false;
  #underWay = 0;

  constructor(
    private readonly platform: Pick<Platform, "clock" | "descriptors" | "storage">,
    readonly fd: number,
    private readonly options: StoreOptions = {},
  ) {}

  get closed(): boolean {
    return this.#closed;
  }

  get size(): number {
    return this.platform.descriptors.size(this.fd);
  }

  read(offset: number, into: Uint8Array): Promise<number> {
    const { platform, fd } = this;
    return this.#follow(
      () => platform.storage.readAt(fd, into, offset),
      () => `read byte ${offset} of the state disk`,
    );
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    const { platform, fd } = this;
    return this.#follow(
      () => platform.storage.writeAt(fd, from, offset),
      () => `write byte ${offset} of the state disk`,
    );
  }

  async flush(): Promise<void> {
    if (this.options.transient) return;
    await this.#follow(
      () => this.platform.storage.sync(this.fd),
      () => "flush the state disk",
    );
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

  #done(): void {
    this.#underWay -= 1;
    if (this.#closed && this.#underWay === 0) this.platform.descriptors.close(this.fd);
  }

  /** No async function: a promise more for each write is what the disk would have to wait for. Rejects with `TransferError`. */
  #follow<T>(operation: () => Promise<T>, what: () => string): Promise<T> {
    if (this.#closed) return Promise.reject(new SystemError("EBADF", "use", "a state disk that is closed"));
    this.#underWay += 1;
    return new Promise((resolve, reject) => {
      const fail = (why: string) =>
        reject(new TransferError(`cannot ${what()}: ${why}; see dom0's kernel log about what is behind it`));
      const { deadline } = this.options;
      const late =
        deadline === undefined
          ? undefined
          : this.platform.clock.setTimer(deadline, () => fail(`no answer for ${deadline / 1000} s`));
      const done = () => {
        late?.cancel();
        this.#done();
      };
      operation().then(
        (result) => {
          done();
          resolve(result);
        },
        (error: unknown) => {
          done();
          if (error instanceof SystemError) fail(error.code);
          else reject(error);
        },
      );
    });
  }
}
