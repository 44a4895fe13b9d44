import { encodeText } from "../bytes/text.ts";
import { StateFormatError } from "./errors.ts";
import { formatVersion, type Hash, hex64 } from "./format.ts";

/*
 * What stands behind QEMU's state in the file that libxl puts into its stream, so that damage done to it there is
 * found before a guest is started from it. QEMU's own reader stops at the end of its state; it looks at one byte
 * more, which would have to be 6 to mean something (migration/savevm.c, QEMU_VM_VMDESCRIPTION).
 *
 *     0          "LXSDSUMS"
 *     8          XXH64 of each 64 KiB of the state, the last one as short as it is; seed: where it begins
 *     8 + 8 n    footer: 0 "LXSDTAIL"  8 checksum u64  16 version u32  20 65536 u32  24 length of the state u64
 *
 * The footer's checksum is that of its bytes 16 to 31, seeded with the XXH64 of all before it (seed 0).
 */
const sumsMagic = encodeText("LXSDSUMS");
const footerMagic = encodeText("LXSDTAIL");
const summedBlock = 64 * 1024;
export const footerSize = 32;

/** Bytes behind a state of `length` bytes. */
export function tailSize(length: number): number {
  return sumsMagic.length + 8 * Math.ceil(length / summedBlock) + footerSize;
}

/** What there is to say of a state of QEMU's with nothing behind it. */
export const unchecked =
  "no checksums stand behind QEMU's state: it is cut off or damaged there, or no helper has saved it; dom0's helper takes it all the same with --accept-unchecked";

/** Takes a state part by part, and makes its tail. */
export class StateSums {
  readonly #sums: bigint[] = [];
  readonly #block = new Uint8Array(summedBlock);
  #filled = 0;
  #length = 0;

  constructor(private readonly hash: Hash) {}

  add(part: Uint8Array): void {
    let rest = part;
    while (rest.length > 0) {
      const taken = rest.subarray(0, summedBlock - this.#filled);
      this.#block.set(taken, this.#filled);
      this.#filled += taken.length;
      this.#length += taken.length;
      rest = rest.subarray(taken.length);
      if (this.#filled === summedBlock) this.#sum();
    }
  }

  /** After it, nothing may be added. */
  tail(): Uint8Array {
    if (this.#filled > 0) this.#sum();
    const bytes = new Uint8Array(tailSize(this.#length));
    const view = new DataView(bytes.buffer);
    bytes.set(sumsMagic);
    for (const [i, sum] of this.#sums.entries()) view.setBigUint64(8 + 8 * i, sum, true);
    const at = bytes.length - footerSize;
    bytes.set(footerMagic, at);
    view.setUint32(at + 16, formatVersion, true);
    view.setUint32(at + 20, summedBlock, true);
    view.setBigUint64(at + 24, BigInt(this.#length), true);
    view.setBigUint64(at + 8, this.hash(bytes.subarray(at + 16), this.hash(bytes.subarray(0, at), 0n)), true);
    return bytes;
  }

  #sum(): void {
    const at = this.#length - this.#filled;
    this.#sums.push(this.hash(this.#block.subarray(0, this.#filled), BigInt(at)));
    this.#filled = 0;
  }
}

/**
 * The length of the state in a file of `size` bytes that ends with `footer`; `undefined` when it is no footer, and
 * the file so carries nothing to check it by.
 *
 * @throws StateFormatError
 */
export function stateLength(size: number, footer: Uint8Array): number | undefined {
  if (footer.length < footerSize || !footerMagic.every((byte, i) => footer[i] === byte)) return undefined;
  const at = size - footerSize;
  const view = new DataView(footer.buffer, footer.byteOffset, footer.byteLength);
  const version = view.getUint32(16, true);
  if (version !== formatVersion) {
    const reason = `checksums of version ${version}; this program reads version ${formatVersion}`;
    throw new StateFormatError("version", at + 16, reason);
  }
  const length = view.getBigUint64(24, true);
  if (length > BigInt(size) || Number(length) + tailSize(Number(length)) !== size) {
    const reason = `the state had ${length} bytes, with checksums the file would be larger or smaller than ${size}`;
    throw new StateFormatError("incomplete", at + 24, reason);
  }
  return Number(length);
}

/**
 * @param computed the tail that the state should have, of what was read
 * @param found the one that it has
 * @throws StateFormatError with the first block that differs
 */
export function compareTails(length: number, computed: Uint8Array, found: Uint8Array): void {
  const differs = computed.findIndex((byte, i) => byte !== found[i]);
  if (differs < 0 && computed.length === found.length) return;
  const block = Math.floor((differs - sumsMagic.length) / 8);
  const offset = block * summedBlock;
  if (differs < sumsMagic.length || offset >= length) {
    throw new StateFormatError("corrupt", length + Math.max(0, differs), "the state's checksums are damaged");
  }
  const sum = (bytes: Uint8Array) =>
    hex64(new DataView(bytes.buffer, bytes.byteOffset).getBigUint64(8 + 8 * block, true));
  const end = Math.min(length, offset + summedBlock);
  const reason = `the checksum up to byte ${end} is ${sum(computed)}, it was written with ${sum(found)}`;
  throw new StateFormatError("corrupt", offset, reason);
}
