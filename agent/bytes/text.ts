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

/** As {@link encodeText}, as many whole characters of it as have room in `most` bytes. */
export function encodeWithin(text: string, most: number): Uint8Array {
  const bytes = encodeText(text);
  if (bytes.length <= most) return bytes;
  let end = most;
  while (isContinuation(bytes[end])) end--;
  return bytes.subarray(0, end);
}

/** Whether it belongs to the character of the byte before: 10xxxxxx. */
function isContinuation(byte = 0): boolean {
  return (byte & 0xc0) === 0x80;
}

/**
 * Text of `bytes` as UTF-8. A byte that is not part of valid UTF-8 becomes U+FFFD, so untrusted input never
 * throws here; what must survive unchanged stays bytes.
 */
export function decodeText(bytes: Uint8Array): string {
  return decoder.decode(bytes);
}
