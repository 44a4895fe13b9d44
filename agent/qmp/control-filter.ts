const backslash = 0x5c;
/** What stands for a control character, and in the place of the `b` or `f` of an escape. */
const questionMark = 0x3f;
const slash = 0x2f;
const [digit0, digit1, digit3, digit7, digit8, digit9] = [0x30, 0x31, 0x33, 0x37, 0x38, 0x39];
const [letterA, letterB, letterE, letterF, letterU, capitalF] = [0x61, 0x62, 0x65, 0x66, 0x75, 0x46];
/** UTF-8's U+0080 to U+009F are this byte and one from 0x80 to 0x9f; then a dot in the middle is. */
const beforeC1 = 0xc2;
const middleDot = 0xb7;

/**
 * QEMU's words on their way to the toolstack, which prints some of them as they are: libxl logs the `desc` of an error to root's
 * terminal, once its parser has made characters of the escapes (libxl_qmp.c, `qmp_ev_parse_error_messages`). Control characters
 * but line ends and tabs, plain or escaped, are replaced where they stand, each byte by another one: so JSON stays JSON, and
 * nothing is kept back.
 */
export class ControlFilter {
  /** What came last: of an escape so much, or the first byte of what may be a control character in UTF-8. */
  #behind: "" | "\\" | "\\u" | "\\u0" | "\\u00" | "\\u007" | "c2" = "";

  /** In place; `bytes` may begin and end anywhere in the stream. */
  filter(bytes: Uint8Array): void {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.#take(bytes[i] ?? 0);
  }

  #take(byte: number): number {
    const behind = this.#behind;
    this.#behind = "";
    switch (behind) {
      case "\\":
        if (byte === letterU) this.#behind = "\\u";
        if (byte === letterB || byte === letterF) return slash;
        // Not the beginning of another escape.
        if (byte === backslash) return byte;
        break;
      case "\\u":
        if (byte === digit0) this.#behind = "\\u0";
        break;
      case "\\u0":
        if (byte === digit0) this.#behind = "\\u00";
        break;
      case "\\u00":
        if (byte === digit0 || byte === digit1) return digit3;
        if (byte === digit8 || byte === digit9) return letterA;
        if (byte === digit7) this.#behind = "\\u007";
        break;
      case "\\u007":
        if (byte === letterF || byte === capitalF) return letterE;
        break;
      case "c2":
        if (byte >= 0x80 && byte <= 0x9f) return middleDot;
        break;
    }
    if (byte === backslash) this.#behind = "\\";
    else if (byte === beforeC1) this.#behind = "c2";
    const control = byte < 0x20 && byte !== 0x09 && byte !== 0x0a && byte !== 0x0d;
    return control || byte === 0x7f ? questionMark : byte;
  }
}
