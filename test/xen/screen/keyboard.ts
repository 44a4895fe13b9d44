/**
 * A PC keyboard of 105 keys: each key's number in Linux, and what it sends on a PS/2 port (scan code set 1)
 * when it is pressed and let go. From IBM's keyboard references, not from the agent's table.
 */
export interface Key {
  readonly code: number;
  readonly pressed: string;
  readonly released: string;
}

/** Row by row, by the numbers of linux/input-event-codes.h. */
const codes: readonly number[] = [
  ...[1, 59, 60, 61, 62, 63, 64, 65, 66, 67, 68, 87, 88, 99, 70, 119],
  ...[41, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 110, 102, 104, 69, 98, 55, 74],
  ...[15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 111, 107, 109, 71, 72, 73, 78],
  ...[58, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 43, 75, 76, 77],
  ...[42, 86, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 103, 79, 80, 81, 96],
  ...[29, 125, 56, 57, 100, 126, 127, 97, 105, 108, 106, 82, 83],
];

/** The keys that came after the PC/XT: the byte behind E0. */
const extended: Readonly<Record<number, number>> = {
  ...{ 96: 0x1c, 97: 0x1d, 98: 0x35, 100: 0x38, 102: 0x47, 103: 0x48, 104: 0x49, 105: 0x4b, 106: 0x4d },
  ...{ 107: 0x4f, 108: 0x50, 109: 0x51, 110: 0x52, 111: 0x53, 125: 0x5b, 126: 0x5c, 127: 0x5d },
};

function key(code: number): Key {
  const hex = (byte: number) => byte.toString(16).padStart(2, "0");
  // Pause sends all it has at once, and nothing when let go.
  if (code === 119) return { code, pressed: "e1 1d 45 e1 9d c5", released: "" };
  // Print Screen comes with a Shift of its own; with Alt down it would be SysRq, 54.
  if (code === 99) return { code, pressed: "e0 2a e0 37", released: "e0 b7 e0 aa" };
  const byte = extended[code];
  if (byte === undefined) return { code, pressed: hex(code), released: hex(code | 0x80) };
  return { code, pressed: `e0 ${hex(byte)}`, released: `e0 ${hex(byte | 0x80)}` };
}

export const keyboard: readonly Key[] = codes.map(key);
