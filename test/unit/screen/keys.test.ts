import { expect, it, test } from "vitest";
import { qemuKey } from "../../../agent/screen/keys.ts";
import { keyboard } from "../../xen/screen/keyboard.ts";

it("every key of a board of 105 has a number of its own", () => {
  const numbers = keyboard.map(({ code }) => qemuKey(code));
  expect(numbers).not.toContain(undefined);
  expect(new Set(numbers).size).toBe(105);
});

it("the number is that of the scan code", () => {
  // QEMU numbers Print Screen as SysRq; Pause has a number that no scan code is.
  expect(qemuKey(99)).toBe(0x54);
  for (const { code, pressed } of keyboard.filter((key) => ![99, 119].includes(key.code))) {
    const bytes = pressed.split(" ").map((byte) => Number.parseInt(byte, 16));
    expect(qemuKey(code)).toBe(bytes.length === 1 ? bytes[0] : (bytes[1] ?? 0) | 0x80);
  }
});

test.each([0, 84, 0xff, 0x100, -1])("%i is no key that QEMU knows", (code) => {
  expect(qemuKey(code)).toBeUndefined();
});
