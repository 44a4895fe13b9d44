/**
 * What can go wrong with saved state:
 *
 *     StateError
 *     ├── StateFormatError   the bytes are not a whole state: what, and at which byte
 *     ├── StateSpaceError    the disk is full and cannot grow
 *     └── TransferError      dom0's helper, QEMU or a device did not do its part
 */
export abstract class StateError extends Error {}

/** An error's words, with what to do behind them where they have no word of that. */
export function withRemedy(error: unknown, remedy: string): string {
  const text = error instanceof Error ? error.message : String(error);
  return /; \S/.test(text) ? text : `${text}; ${remedy}`;
}

/**
 * - `foreign`: something else, or nothing, was written here;
 * - `version`: written by a newer program;
 * - `incomplete`: writing was cut short;
 * - `corrupt`: what is there differs from what was written.
 */
export type StateFault = "foreign" | "version" | "incomplete" | "corrupt";

/** State that is refused: nothing of it may reach a guest. */
export class StateFormatError extends StateError {
  override readonly name = "StateFormatError";
  constructor(
    readonly fault: StateFault,
    /** Bytes from the start of the disk, file or stream. */
    readonly offset: number,
    readonly reason: string,
  ) {
    super(`state refused, byte ${offset}: ${reason}`);
  }
}

export class StateSpaceError extends StateError {
  override readonly name = "StateSpaceError";
}

export class TransferError extends StateError {
  override readonly name = "TransferError";
}
