import { decodeText, encodeText } from "../bytes/text.ts";

/*
 * Arguments are bytes: a guest's name or a path may be in any encoding. Where they have to be looked into,
 * they are handled as strings with one character a byte (code units 0 to 255), which loses nothing and in
 * which QEMU's own syntax, all ASCII, reads as text.
 */

const chunk = 4096;

export function toByteString(bytes: Uint8Array): string {
  const ascii = decodeText(bytes);
  // A byte that is no ASCII makes it shorter, or U+FFFD.
  if (ascii.length === bytes.length && !ascii.includes("\ufffd")) return ascii;
  let text = "";
  for (let start = 0; start < bytes.length; start += chunk) {
    text += String.fromCharCode(...bytes.subarray(start, start + chunk));
  }
  return text;
}

/** The inverse of {@link toByteString}; `text` has no code unit above 255. */
export function fromByteString(text: string): Uint8Array {
  const ascii = encodeText(text);
  if (ascii.length === text.length) return ascii;
  const bytes = new Uint8Array(text.length);
  for (let index = 0; index < text.length; index++) bytes[index] = text.charCodeAt(index);
  return bytes;
}

/** At most `limit` printable ASCII characters in quotes; anything else as \xNN; the length when cut. */
export function shown(text: string, limit = 60): string {
  const head = text.slice(0, limit);
  const printable = head.replace(/[^\x20-\x7e]/g, (character) => {
    return `\\x${(character.charCodeAt(0) & 0xff).toString(16).padStart(2, "0")}`;
  });
  return text.length > limit ? `"${printable}"... (${text.length} bytes)` : `"${printable}"`;
}

/**
 * QEMU's option lists, `type=tap,id=net0,script=no`, as their parts. A comma within a value is doubled, and
 * stays so: the parts joined by commas are the list again.
 */
export function splitOptions(list: string): string[] {
  if (!list.includes(",,")) {
    const parts = list.split(",");
    return parts.includes("") ? parts.filter((part) => part !== "") : parts;
  }
  return list.match(/(?:[^,]|,,)+/g) ?? [];
}

/** Key of one part; the first part of a list may be a bare value, whose key is implied. */
export function optionKey(part: string): string {
  const equals = part.indexOf("=");
  return equals < 0 ? part : part.slice(0, equals);
}

/** Value of `key`, with doubled commas made single; the last one counts, as in QEMU. */
export function optionValue(parts: readonly string[], key: string): string | undefined {
  const start = `${key}=`;
  const value = parts.findLast((part) => part.startsWith(start))?.slice(start.length);
  return value?.includes(",,") ? value.replaceAll(",,", ",") : value;
}
