const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** `text` is a decimal number of at most `digits` digits. */
export function isDecimal(text: string, digits: number): boolean {
  for (let n = 0; n < text.length; n++) {
    const code = text.charCodeAt(n);
    if (code < 0x30 || code > 0x39) return false;
  }
  return text !== "" && text.length <= digits;
}

/** UTF-8 bytes of `text`. */
export function encodeText(text: string): Uint8Array {
  return encoder.encode(text);
}

/**
 * Text of `bytes` as UTF-8. A byte that is not part of valid UTF-8 becomes U+FFFD, so untrusted input never
 * throws here; what must survive unchanged stays bytes.
 */
export function decodeText(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}
