/**
 * PNG (RFC 2083) of a scene, without any library: 8 bits a channel, three channels, twice as many pixels each way
 * as the scene has.
 */
import { crc32, deflateSync } from "node:zlib";
import { GLYPH_WIDTH, GLYPHS } from "./glyphs.ts";
import { channels, LETTER, type Scene, type Shape } from "./scene.ts";

const SCALE = 2;
/** Rows of a letter above the line that it stands on. */
const ASCENT = 7;
/** Dots from one letter to the next. */
const ADVANCE = GLYPH_WIDTH + 1;

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);
const TRUE_COLOUR = 2;

class Canvas {
  readonly pixels: Uint8Array;

  constructor(
    readonly width: number,
    readonly height: number,
  ) {
    this.pixels = new Uint8Array(width * height * 3).fill(0xff);
  }

  fill(x: number, y: number, width: number, height: number, colour: readonly [number, number, number]): void {
    const clamp = (value: number, most: number) => Math.min(most, Math.max(0, Math.round(value)));
    const [left, right] = [clamp(x, this.width), clamp(x + width, this.width)];
    for (let row = clamp(y, this.height); row < clamp(y + height, this.height); row++) {
      for (let column = left; column < right; column++)
        this.pixels.set(colour, 3 * (row * this.width + column));
    }
  }

  draw(shape: Shape): void {
    const colour = channels(shape.fill);
    if (shape.kind === "rectangle") {
      const { x, y, width, height } = shape;
      // What has a size is seen.
      this.fill(x * SCALE, y * SCALE, Math.max(1, width * SCALE), Math.max(1, height * SCALE), colour);
      return;
    }
    const dot = (shape.size * LETTER * SCALE) / ADVANCE;
    const letters = [...shape.text];
    const start = shape.x * SCALE - (shape.anchor === "end" ? letters.length * ADVANCE * dot : 0);
    for (const [index, letter] of letters.entries()) {
      const rows = letter === " " ? [] : (GLYPHS[letter] ?? GLYPHS["?"] ?? "").split(" ");
      for (const [row, dots] of rows.entries()) {
        for (const [column, mark] of [...dots].entries()) {
          if (mark !== "#") continue;
          const x = start + (index * ADVANCE + column) * dot;
          this.fill(x, shape.y * SCALE + (row - ASCENT) * dot, dot, dot, colour);
        }
      }
    }
  }
}

function chunk(type: string, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(12 + data.length);
  bytes.writeUInt32BE(data.length, 0);
  bytes.write(type, 4, "latin1");
  bytes.set(data, 8);
  bytes.writeUInt32BE(crc32(bytes.subarray(4, 8 + data.length)), 8 + data.length);
  return bytes;
}

export function png(scene: Scene): Buffer {
  const canvas = new Canvas(scene.width * SCALE, scene.height * SCALE);
  for (const shape of scene.shapes) canvas.draw(shape);
  const { width, height, pixels } = canvas;
  const header = Buffer.alloc(13);
  header.writeUInt32BE(width, 0);
  header.writeUInt32BE(height, 4);
  header.set([8, TRUE_COLOUR], 8);
  // Each row after a byte that says how it is filtered: not at all.
  const rows = Buffer.alloc(height * (1 + 3 * width));
  for (let row = 0; row < height; row++) {
    rows.set(pixels.subarray(row * width * 3, (row + 1) * width * 3), row * (1 + 3 * width) + 1);
  }
  return Buffer.concat([
    SIGNATURE,
    chunk("IHDR", header),
    chunk("IDAT", deflateSync(rows, { level: 9 })),
    chunk("IEND", new Uint8Array()),
  ]);
}
