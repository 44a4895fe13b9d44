import { pointerButtons } from "./rfb.ts";

/*
 * What /dev/input/event* brings (linux/input.h, 64-bit): struct input_event, little-endian.
 *
 *  0              16     18     20        24
 *  | time, unused | type | code | value   |
 */
export const eventSize = 24;

export interface InputEvent {
  readonly type: number;
  readonly code: number;
  readonly value: number;
}

// linux/input-event-codes.h
const typeSync = 0;
const typeKey = 1;
const typeRelative = 2;
const typeAbsolute = 3;
const syncReport = 0;
const syncDropped = 3;
const axisX = 0;
const axisY = 1;
const axisWheel = 8;
const buttonMask = new Map<number, number>([
  [0x110, pointerButtons.left],
  [0x111, pointerButtons.right],
  [0x112, pointerButtons.middle],
]);
/** Codes from here on are buttons, of a mouse first; keys are below. */
const firstButton = 0x100;

/** `bytes` holds whole events: a read of an evdev device never ends within one. */
export function decodeEvents(bytes: Uint8Array): InputEvent[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const events: InputEvent[] = [];
  for (let at = 0; at + eventSize <= bytes.length; at += eventSize) {
    events.push({
      type: view.getUint16(at + 16, true),
      code: view.getUint16(at + 18, true),
      value: view.getInt32(at + 20, true),
    });
  }
  return events;
}

/** What somebody did. Points are those of the framebuffer, `buttons` a mask of {@link pointerButtons}. */
export type InputAction =
  | { readonly kind: "key"; readonly code: number; readonly pressed: boolean }
  | { readonly kind: "pointer"; readonly x: number; readonly y: number; readonly buttons: number }
  /** Events were lost: which keys are down is not known. */
  | { readonly kind: "lost" };

/** Notches of the wheel that one report may stand for; more is no wheel that a hand turns. */
const mostNotches = 16;

/** Where the pointer is, in points of the framebuffer. */
export interface Position {
  x: number;
  y: number;
}

/** One device's events, gathered into actions: a pointer moves when its report is complete. */
export class InputReader {
  #buttons = 0;
  #wheel = 0;
  #changed = false;
  #dropping = false;

  /** @param position where it was last: Linux tells of an axis only what changes. Kept up to date */
  constructor(private readonly position: Position = { x: 0, y: 0 }) {}

  feed(event: InputEvent): InputAction[] {
    if (event.type === typeSync) return this.#sync(event.code);
    if (this.#dropping) return [];
    switch (event.type) {
      case typeKey:
        return this.#key(event.code, event.value);
      case typeAbsolute:
        if (event.code === axisX) this.#move(event.value, this.position.y);
        if (event.code === axisY) this.#move(this.position.x, event.value);
        return [];
      case typeRelative:
        if (event.code === axisX) this.#move(this.position.x + event.value, this.position.y);
        if (event.code === axisY) this.#move(this.position.x, this.position.y + event.value);
        if (event.code === axisWheel) this.#wheel += event.value;
        return [];
      default:
        return [];
    }
  }

  #key(code: number, value: number): InputAction[] {
    // 2 is the kernel's own repetition, which fbfront's keyboard does not have.
    if (value !== 0 && value !== 1) return [];
    if (code < firstButton) return [{ kind: "key", code, pressed: value === 1 }];
    const mask = buttonMask.get(code) ?? 0;
    this.#buttons = value === 1 ? this.#buttons | mask : this.#buttons & ~mask;
    this.#changed ||= mask !== 0;
    return [];
  }

  #move(x: number, y: number): void {
    this.position.x = Math.max(0, x);
    this.position.y = Math.max(0, y);
    this.#changed = true;
  }

  #sync(code: number): InputAction[] {
    if (code === syncDropped) {
      this.#dropping = true;
      return [];
    }
    if (code !== syncReport) return [];
    if (this.#dropping) {
      this.#dropping = false;
      this.#buttons = 0;
      this.#wheel = 0;
      this.#changed = false;
      return [{ kind: "lost" }, this.#pointer(0)];
    }
    const actions: InputAction[] = this.#changed ? [this.#pointer(0)] : [];
    const notch = this.#wheel > 0 ? pointerButtons.wheelUp : pointerButtons.wheelDown;
    for (let left = Math.min(mostNotches, Math.abs(this.#wheel)); left > 0; left--) {
      actions.push(this.#pointer(notch), this.#pointer(0));
    }
    this.#wheel = 0;
    this.#changed = false;
    return actions;
  }

  #pointer(notch: number): InputAction {
    return { kind: "pointer", ...this.position, buttons: this.#buttons | notch };
  }
}
