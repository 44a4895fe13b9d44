import type { Platform } from "../platform/port.ts";
import { StateFormatError } from "../savestate/errors.ts";
import { compareTails, footerSize, StateSums, stateLength, tailSize } from "../savestate/tail.ts";
import { FileInput } from "./file-input.ts";

/** A file with QEMU's own state, and, where a helper has put it there, the checksums behind it. */
export class BareState {
  readonly #input: FileInput;
  readonly #sums: StateSums;

  private constructor(
    private readonly platform: Platform,
    private readonly fd: number,
    /** Bytes of the state. */
    readonly length: number,
    /** Whether there is anything to check it by. */
    readonly checked: boolean,
  ) {
    this.#input = new FileInput(platform, fd, length);
    this.#sums = new StateSums(platform.storage.hash);
  }

  /** The descriptor stays the caller's. @throws StateFormatError, SystemError */
  static async open(platform: Platform, fd: number): Promise<BareState> {
    const size = platform.descriptors.size(fd);
    const footer = new Uint8Array(footerSize);
    if (size >= footerSize) await platform.storage.readAt(fd, footer, size - footerSize);
    const length = stateLength(size, footer);
    return new BareState(platform, fd, length ?? size, length !== undefined);
  }

  /** The next bytes of the state; 0 at its end. */
  async take(into: Uint8Array): Promise<number> {
    const count = await this.#input.take(into);
    if (this.checked) this.#sums.add(into.subarray(0, count));
    return count;
  }

  /** To be called when all has been taken. @throws StateFormatError */
  async verify(): Promise<void> {
    if (!this.checked) return;
    const found = new Uint8Array(tailSize(this.length));
    const count = await this.platform.storage.readAt(this.fd, found, this.length);
    if (count < found.length) throw new StateFormatError("incomplete", this.length + count, "ends too early");
    compareTails(this.length, this.#sums.tail(), found);
  }
}
