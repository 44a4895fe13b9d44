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
  // Copied: a stream's chunk may be a byte of a buffer that is kept as long as the chunk is.
  let line = new Uint8Array(Math.min(limit, 256));
  let size = 0;
  for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) {
    const end = chunk.indexOf(newline);
    const part = end < 0 ? chunk : chunk.subarray(0, end);
    if (size + part.length > limit) throw new LineTooLong(`a line of more than ${limit} bytes`);
    if (size + part.length > line.length) {
      const larger = new Uint8Array(Math.min(limit, 2 * (size + part.length)));
      larger.set(line.subarray(0, size));
      line = larger;
    }
    line.set(part, size);
    size += part.length;
    if (end >= 0) return decodeText(line.subarray(0, size));
  }
  return null;
}
