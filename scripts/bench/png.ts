/**
 * PNG (RFC 2083) without any library: 8 bits a channel, three channels; of a scene twice as many pixels each way
 * as it has.
 */
import { crc32, deflateSync } from "node:zlib";
import { GLYPH_WIDTH, GLYPHS } from "./glyphs.ts";
import { channels, LETTER, type Scene, type Shape, STROKE } from "./scene.ts";

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

  line(x: number, y: number, width: number, height: number, colour: readonly [number, number, number]): void {
    const thick = STROKE * SCALE;
    const steps = Math.max(1, Math.ceil(Math.max(Math.abs(width), Math.abs(height))));
    for (let step = 0; step <= steps; step++) {
      const [left, top] = [x + (width * step) / steps, y + (height * step) / steps];
      this.fill(left - thick / 2, top - thick / 2, thick, thick, colour);
    }
  }

  draw(shape: Shape): void {
    const colour = channels(shape.fill);
    if (shape.kind !== "text") {
      const [x, y] = [shape.x * SCALE, shape.y * SCALE];
      const [width, height] = [shape.width * SCALE, shape.height * SCALE];
      // What has a size is seen.
      if (shape.kind === "rectangle") this.fill(x, y, Math.max(1, width), Math.max(1, height), colour);
      else this.line(x, y, width, height, colour);
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

/** Pixels row by row, three bytes each, red first. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** Rows as differences from the row above, which is small where pictures are drawn, or as they are. */
const FILTERS = { none: 0, up: 2 } as const;

function filtered({ width, height, rgb }: Picture, filter: keyof typeof FILTERS): Buffer {
  const length = 3 * width;
  const rows = Buffer.alloc(height * (1 + length));
  for (let row = 0; row < height; row++) {
    const at = row * (1 + length);
    rows[at] = FILTERS[filter];
    rows.set(rgb.subarray(row * length, (row + 1) * length), at + 1);
    if (filter === "none" || row === 0) continue;
    for (let i = 0; i < length; i++) {
      rows[at + 1 + i] = (rgb[row * length + i] ?? 0) - (rgb[(row - 1) * length + i] ?? 0);
    }
  }
  return rows;
}

export function encodePng(picture: Picture): Buffer {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(picture.width, 0);
  header.writeUInt32BE(picture.height, 4);
  header.set([8, TRUE_COLOUR], 8);
  const packed = (["none", "up"] as const).map((filter) =>
    deflateSync(filtered(picture, filter), { level: 9 }),
  );
  const [smallest = Buffer.alloc(0)] = packed.sort((a, b) => a.length - b.length);
  return Buffer.concat([
    SIGNATURE,
    chunk("IHDR", header),
    chunk("IDAT", smallest),
    chunk("IEND", new Uint8Array()),
  ]);
}

export function png(scene: Scene): Buffer {
  const canvas = new Canvas(scene.width * SCALE, scene.height * SCALE);
  for (const shape of scene.shapes) canvas.draw(shape);
  const { width, height, pixels: rgb } = canvas;
  return encodePng({ width, height, rgb });
}
