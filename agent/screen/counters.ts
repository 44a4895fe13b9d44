/** What the screen has done since it was started: shown by `stubdom status`, and how a test sees that nothing was. */
export interface ScreenCounters {
  /** Updates with pixels in them. */
  updates: number;
  rectangles: number;
  /** Copied; four bytes each. */
  pixels: number;
  resizes: number;
  /** Key events sent to QEMU, repetitions included. */
  keys: number;
  pointerMoves: number;
}

export function zeroCounters(): ScreenCounters {
  return { updates: 0, rectangles: 0, pixels: 0, resizes: 0, keys: 0, pointerMoves: 0 };
}
