/** A picture as a list of shapes, from which the same SVG and PNG are made. Pixels, from the top left corner. */

export type Shape =
  | {
      /** A line is the diagonal: from (x, y) to (x + width, y + height), which may be below zero. */
      readonly kind: "rectangle" | "line";
      readonly x: number;
      readonly y: number;
      readonly width: number;
      readonly height: number;
      readonly fill: string;
    }
  | {
      readonly kind: "text";
      /** Where the anchor is, on the line that letters stand on. */
      readonly x: number;
      readonly y: number;
      readonly text: string;
      /** Of the em; a letter is 0.6 of it wide. A multiple of 5. */
      readonly size: number;
      readonly anchor: "start" | "end";
      readonly fill: string;
    };

export interface Scene {
  readonly width: number;
  readonly height: number;
  /** What the picture shows, for who cannot see it. */
  readonly title: string;
  readonly shapes: readonly Shape[];
}

/** Width of a letter, as a share of its size: that of every monospaced font, and of ours. */
export const LETTER = 0.6;

/** Width of a line. */
export const STROKE = 2;

/** Colours are `#rrggbb`. */
export function channels(colour: string): [number, number, number] {
  const match = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(colour);
  if (match === null) throw new RangeError(`no colour: ${colour}`);
  const [, red = "", green = "", blue = ""] = match;
  return [Number.parseInt(red, 16), Number.parseInt(green, 16), Number.parseInt(blue, 16)];
}

const round = (value: number): string => String(Math.round(value * 100) / 100);

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (character) => `&#${character.charCodeAt(0)};`);
}

export function svg({ width, height, title, shapes }: Scene): string {
  const body = shapes.map((shape) => {
    if (shape.kind !== "text") {
      const { x, y, width, height, fill } = shape;
      return shape.kind === "rectangle"
        ? `<rect x="${round(x)}" y="${round(y)}" width="${round(width)}" height="${round(height)}" fill="${fill}"/>`
        : `<line x1="${round(x)}" y1="${round(y)}" x2="${round(x + width)}" y2="${round(y + height)}" stroke="${fill}" stroke-width="${STROKE}"/>`;
    }
    const { x, y, size, anchor, fill, text } = shape;
    return `<text x="${round(x)}" y="${round(y)}" font-size="${size}" text-anchor="${anchor}" fill="${fill}">${escaped(text)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" role="img" font-family="monospace">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    ...body,
    "</svg>",
    "",
  ].join("\n");
}
