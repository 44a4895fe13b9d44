import { concatBytes } from "../bytes/bytes.ts";
import { decodeText, encodeText } from "../bytes/text.ts";
import type { Rectangle } from "../platform/port.ts";
import { RfbError } from "./errors.ts";

/*
 * The part of RFB 3.8 (RFC 6143) that the agent speaks with QEMU, and QEMU's extended key event (number 255
 * in the registry of client messages, pseudo-encoding -258). All numbers are big-endian.
 */

/** RFC 6143, 7.1.1. */
export const protocolVersion = encodeText("RFB 003.008\n");

/** RFC 6143, 7.2.1: no authentication. The socket lies where nobody but PID 1 and QEMU is. */
export const securityNone = 1;

export const encodings = {
  raw: 0,
  /** RFC 6143, 7.8.2: the rectangle's size is the new size of the screen. */
  desktopSize: -223,
  /** QEMU acknowledges that it takes extended key events. */
  extendedKeyEvent: -258,
} as const;

/** First byte of a message from the server (RFC 6143, 7.6). */
export const serverMessages = { framebufferUpdate: 0, setColourMap: 1, bell: 2, cutText: 3 } as const;

/**
 * A size of the screen that QEMU may name. Its VNC server's own limits are 5120 x 2160 (ui/vnc.h of
 * QEMU 10); the bound here only keeps numbers sane.
 */
const longestSide = 16_384;

export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Number of bytes of each fixed-size part of the server's messages. */
export const sizes = {
  version: 12,
  securityResult: 4,
  /** ServerInit without the name (RFC 6143, 7.3.2). */
  serverInit: 24,
  /** FramebufferUpdate after its first byte: a byte of padding, the number of rectangles. */
  updateHeader: 3,
  rectangleHeader: 12,
  /** ServerCutText after its first byte: three bytes of padding, the length. */
  cutTextHeader: 7,
} as const;

/** @throws RfbError unless the server speaks 3.8 or later of the same kind */
export function checkVersion(bytes: Uint8Array): void {
  const match = /^RFB 003\.(\d{3})\n$/.exec(decodeText(bytes));
  if (match === null || Number(match[1]) < 8) {
    throw new RfbError(`RFB: the server's version is ${JSON.stringify(decodeText(bytes))}, not 003.008`);
  }
}

/*
 *  0        2         4                    20            24
 *  | width  | height  | pixel format (16)  | name length | name ...
 */
export function decodeServerInit(bytes: Uint8Array): Size & { readonly nameLength: number } {
  const view = viewOf(bytes);
  return { ...checkedSize(view.getUint16(0), view.getUint16(2)), nameLength: view.getUint32(20) };
}

export interface RectangleHeader {
  readonly area: Rectangle;
  readonly encoding: number;
}

/*
 *  0    2    4       6        8          12
 *  | x  | y  | width | height | encoding |
 */
export function decodeRectangle(bytes: Uint8Array): RectangleHeader {
  const view = viewOf(bytes);
  return {
    area: {
      x: view.getUint16(0),
      y: view.getUint16(2),
      width: view.getUint16(4),
      height: view.getUint16(6),
    },
    encoding: view.getInt32(8),
  };
}

export function decodeRectangleCount(updateHeader: Uint8Array): number {
  return viewOf(updateHeader).getUint16(1);
}

export function decodeCutTextLength(header: Uint8Array): number {
  return viewOf(header).getUint32(3);
}

/** @throws RfbError for a screen without pixels, or one that no QEMU has */
export function checkedSize(width: number, height: number): Size {
  if (width < 1 || height < 1 || width > longestSide || height > longestSide) {
    throw new RfbError(`RFB: a screen of ${width}x${height} pixels`);
  }
  return { width, height };
}

/** RFC 6143, 7.3.1: others may be connected as well. */
export const clientInit = Uint8Array.of(1);

/**
 * RFC 6143, 7.5.1 and 7.4: 32 bits a pixel, 24 of them colour, little-endian, 8 bits a colour, red from
 * bit 16, green from 8, blue from 0. That is fbfront's format, and QEMU's own: it copies without converting.
 */
export const setPixelFormat = Uint8Array.of(
  ...[0, 0, 0, 0],
  ...[32, 24, 0, 1],
  ...[0, 255, 0, 255, 0, 255],
  ...[16, 8, 0],
  ...[0, 0, 0],
);

/** RFC 6143, 7.5.2. */
export function setEncodings(list: readonly number[]): Uint8Array {
  const { bytes, view } = message(4 + 4 * list.length, 2);
  view.setUint16(2, list.length);
  for (const [index, encoding] of list.entries()) view.setInt32(4 + 4 * index, encoding);
  return bytes;
}

/** RFC 6143, 7.5.3: of the whole screen. `incremental`: answered once something has changed. */
export function updateRequest(size: Size, incremental: boolean): Uint8Array {
  const { bytes, view } = message(10, 3);
  view.setUint8(1, incremental ? 1 : 0);
  view.setUint16(6, size.width);
  view.setUint16(8, size.height);
  return bytes;
}

/**
 * QEMU's extended key event: which key, by its number in QEMU (see keys.ts), and what is written on it, to which
 * our own QEMU does not look: it has no layout and `lock-key-sync=off`.
 */
export function keyEvent(key: number, pressed: boolean, keysym = 0): Uint8Array {
  const { bytes, view } = message(12, 255);
  view.setUint16(2, pressed ? 1 : 0);
  view.setUint32(4, keysym);
  view.setUint32(8, key);
  return bytes;
}

/** Bits of a pointer event's mask (RFC 6143, 7.5.5). */
export const pointerButtons = { left: 1, middle: 2, right: 4, wheelUp: 8, wheelDown: 16 } as const;

export function pointerEvent(x: number, y: number, buttons: number): Uint8Array {
  const { bytes, view } = message(6, 5);
  view.setUint8(1, buttons);
  view.setUint16(2, x);
  view.setUint16(4, y);
  return bytes;
}

/**
 * Says that somebody is there. QEMU looks for changes every 30 ms, and 50 ms later each time that it finds
 * none, up to 3 s; any message of a type above 3 takes it back to 30 ms (ui/vnc.c, `protocol_client_msg`).
 * An empty cut text (RFC 6143, 7.5.6) is the one such message that no guest sees.
 */
export const attention = message(8, 6).bytes;

/** What the client says once it has read ServerInit. */
export function clientSetup(): Uint8Array {
  return concatBytes([setPixelFormat, setEncodings(Object.values(encodings)), attention]);
}

function message(length: number, type: number): { bytes: Uint8Array; view: DataView } {
  const bytes = new Uint8Array(length);
  bytes[0] = type;
  return { bytes, view: viewOf(bytes) };
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
