/** A picture: rows of pixels, 3 bytes each, red first. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
}

/** The first pixel in which the two differ, for people; `undefined` when none does. */
export function difference(shown: Picture, wanted: Picture): string | undefined {
  if (shown.width !== wanted.width || shown.height !== wanted.height) {
    return `${shown.width}x${shown.height} instead of ${wanted.width}x${wanted.height}`;
  }
  if (Buffer.compare(shown.rgb, wanted.rgb) === 0) return undefined;
  const at = Math.floor(shown.rgb.findIndex((byte, i) => byte !== wanted.rgb[i]) / 3);
  return `pixel ${at % shown.width},${Math.floor(at / shown.width)} differs`;
}

/** What comes before the pixels in QMP's screendump. */
export function ppmHead({ width, height }: Picture): string {
  return `P6\n${width} ${height}\n255\n`;
}

/** QMP's screendump. */
export function parsePpm(bytes: Uint8Array): Picture {
  const head = Buffer.from(bytes.subarray(0, 32)).toString("latin1");
  const match = /^P6\n(\d+) (\d+)\n255\n/.exec(head);
  if (match === null) throw new Error("no PPM");
  return { width: Number(match[1]), height: Number(match[2]), rgb: bytes.subarray(match[0].length) };
}
