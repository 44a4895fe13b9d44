import { concatBytes } from "../bytes/bytes.ts";
import { decodeText } from "../bytes/text.ts";
import type { ByteStream } from "./stream.ts";

/** More came than may be kept. */
export class LineTooLong extends Error {
  override readonly name = "LineTooLong";
}

const newline = 0x0a;

/**
 * The first line of a stream, without its end; what follows it is dropped. `null` when the stream ends
 * before the line does; throws {@link LineTooLong} for a line of more than `limit` bytes.
 */
export async function readLine(stream: ByteStream, limit: number): Promise<string | null> {
  const parts: Uint8Array[] = [];
  let size = 0;
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) {
    const end = chunk.indexOf(newline);
    parts.push(end < 0 ? chunk : chunk.subarray(0, end));
    size += end < 0 ? chunk.length : end;
    if (size > limit) throw new LineTooLong(`a line of more than ${limit} bytes`);
    if (end >= 0) return decodeText(concatBytes(parts));
  }
  return null;
}
