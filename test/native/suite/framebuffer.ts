import * as native from "stubdom-native";
import {
  CLOSED,
  close,
  done,
  equal,
  errno,
  freshFile,
  type Group,
  holds,
  list,
  refusals,
  throws,
} from "../harness.ts";
import { harmlessFor, onlyFor } from "./vchan.ts";

const END = 0;
const DONE = 1;
const WAIT = 2;
const MORE = 3;
const PIXEL = 4;

function open(socket = CLOSED): native.Pixels {
  const pixels = native.pixelsOpen(socket);
  if (typeof pixels === "number") throw new Error(`pixelsOpen: ${pixels}`);
  return pixels;
}

const source = (call: (pixels: native.Pixels) => unknown) =>
  onlyFor(
    open,
    (one) => native.pixelsClose(one as native.Pixels),
    (one) => call(one as native.Pixels),
  );

/** In the order of struct pixels_plan. */
interface Plan {
  framebuffer: number;
  stride: number;
  size: number;
  sourceWidth: number;
  sourceHeight: number;
  left: number;
  top: number;
  width: number;
  height: number;
  x: number;
  y: number;
  w: number;
  h: number;
}

function encode(plan: Plan): Int32Array {
  const { framebuffer, stride, size, sourceWidth, sourceHeight, left, top, width, height, x, y, w, h } = plan;
  return Int32Array.of(
    framebuffer,
    stride,
    size,
    sourceWidth,
    sourceHeight,
    left,
    top,
    width,
    height,
    x,
    y,
    w,
    h,
  );
}

function plain(framebuffer: number): Plan {
  return {
    framebuffer,
    stride: 32,
    size: 32 * 8,
    sourceWidth: 8,
    sourceHeight: 8,
    left: 0,
    top: 0,
    width: 8,
    height: 8,
    x: 0,
    y: 0,
    w: 8,
    h: 8,
  };
}

/** mulberry32: the same plans on every run. */
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

/** What the framebuffer holds after the rectangle of `plan`, filled with pixel n = n + 1, over 0xee. */
function model(plan: Plan): Uint8Array {
  const bytes = new Uint8Array(plan.size).fill(0xee);
  const view = new DataView(bytes.buffer);
  let first = Number.POSITIVE_INFINITY;
  const rows = new Set<number>();
  for (let row = 0; row < plan.height; row++)
    for (let column = 0; column < plan.width; column++) {
      const y = Math.floor((row * plan.sourceHeight) / plan.height) - plan.y;
      const x = Math.floor((column * plan.sourceWidth) / plan.width) - plan.x;
      if (x < 0 || x >= plan.w || y < 0 || y >= plan.h) continue;
      rows.add(row);
      first = Math.min(first, column);
      view.setUint32((plan.top + row) * plan.stride + (plan.left + column) * PIXEL, y * plan.w + x + 1, true);
    }
  // Rows written from side to side take the black bars with them.
  const columns = Array.from({ length: plan.width }, (_, n) =>
    Math.floor((n * plan.sourceWidth) / plan.width),
  );
  const whole = columns.every((x) => x >= plan.x && x < plan.x + plan.w);
  if (whole)
    for (const row of rows) {
      const start = (plan.top + row) * plan.stride;
      bytes.fill(0, start, start + plan.left * PIXEL);
      bytes.fill(0, start + (plan.left + plan.width) * PIXEL, start + plan.stride);
    }
  return bytes;
}

function draw(plan: Plan, sender: number, pixels: native.Pixels, cut: (left: number) => number): void {
  const picture = new Uint8Array(plan.w * plan.h * PIXEL);
  const view = new DataView(picture.buffer);
  for (let n = 0; n < plan.w * plan.h; n++) view.setUint32(n * PIXEL, n + 1, true);
  equal(native.pixelsBegin(pixels, encode(plan)), 0);
  for (let sent = 0; ; ) {
    const result = native.pixelsDraw(pixels);
    if (result === DONE) return;
    if (result === MORE) continue;
    equal(result, WAIT);
    holds(sent < picture.length, "it waits only for what was not sent");
    const piece = picture.subarray(sent, sent + cut(picture.length - sent));
    sent += done(native.write(sender, piece));
  }
}

function contents(fd: number, size: number): Uint8Array {
  const bytes = new Uint8Array(size);
  native.seek(fd, 0);
  for (let at = 0; at < size; ) {
    const count = done(native.read(fd, bytes.subarray(at)));
    if (count === 0) return bytes.subarray(0, at);
    at += count;
  }
  return bytes;
}

export const framebufferTests: Record<string, Group> = {
  framebufferMode: {
    ...refusals("framebufferMode", native.framebufferMode, "descriptor"),
    "what is none": () => {
      const fd = freshFile();
      equal(native.framebufferMode(fd), errno.ENOTTY);
      close(fd);
    },
  },
  setFramebufferMode: {
    ...refusals("setFramebufferMode", native.setFramebufferMode, "descriptor", "integer", "integer"),
    "what is none": () => {
      const fd = freshFile();
      equal(native.setFramebufferMode(fd, 640, 480), errno.ENOTTY);
      close(fd);
    },
  },
  pixelsOpen: {
    ...refusals(
      "pixelsOpen",
      (socket: unknown) => {
        // Opening takes any number; only what is received from it fails.
        const pixels = open(socket as number);
        const result = native.pixelsTake(pixels, new Uint8Array(1));
        native.pixelsClose(pixels);
        return result;
      },
      "descriptor",
    ),
    "a forgotten one is freed": () => void open(),
  },
  pixelsTake: {
    ...source((pixels) => native.pixelsTake(pixels, new Uint8Array(4))),
    "whole or nothing": () => {
      const [a, b] = list(native.socketPair());
      const pixels = open(a);
      const bytes = new Uint8Array(6).fill(9);
      native.write(b, Uint8Array.of(1, 2, 3));
      equal(native.pixelsTake(pixels, bytes.subarray(1, 5)), WAIT);
      equal([...bytes], [9, 9, 9, 9, 9, 9]);
      native.write(b, Uint8Array.of(4, 5));
      equal(native.pixelsTake(pixels, bytes.subarray(1, 5)), DONE);
      equal([...bytes], [9, 1, 2, 3, 4, 9]);
      equal(native.pixelsTake(pixels, new Uint8Array(0)), DONE);
      close(b);
      equal(native.pixelsTake(pixels, bytes), END);
      native.pixelsClose(pixels);
      close(a);
    },
    "64 KiB, and no more": () => {
      const [a, b] = list(native.socketPair());
      const pixels = open(a);
      equal(native.pixelsTake(pixels, new Uint8Array(65537)), errno.EINVAL);
      const whole = new Uint8Array(65536);
      for (let sent = 0; sent < whole.length; ) sent += done(native.write(b, whole.subarray(sent)));
      equal(native.pixelsTake(pixels, whole), DONE);
      native.pixelsClose(pixels);
      close(a, b);
    },
    "needs bytes": () => {
      const pixels = open();
      for (const wrong of [null, 5, {}, new ArrayBuffer(4)])
        throws(() => native.pixelsTake(pixels, wrong as Uint8Array));
      native.pixelsClose(pixels);
    },
  },
  pixelsBegin: {
    ...source((pixels) => native.pixelsBegin(pixels, encode(plain(1)))),
    "needs thirteen numbers": () => {
      const pixels = open();
      for (const count of [0, 1, 12, 14, 1000])
        equal(native.pixelsBegin(pixels, new Int32Array(count)), errno.EINVAL);
      for (const wrong of [null, 5, {}])
        throws(() => native.pixelsBegin(pixels, wrong as unknown as Int32Array));
      native.pixelsClose(pixels);
    },
    "refuses each number that leads out of the framebuffer": () => {
      const pixels = open();
      equal(native.pixelsBegin(pixels, encode(plain(1))), 0);
      const worst = [-(2 ** 31), -1, 2 ** 31 - 1, 2 ** 30];
      for (const key of Object.keys(plain(1)) as (keyof Plan)[]) {
        if (key === "framebuffer") continue;
        for (const value of worst) {
          const result = native.pixelsBegin(pixels, encode({ ...plain(1), [key]: value }));
          // A framebuffer may be larger than what is shown of it.
          if (result !== errno.EINVAL) holds(key === "size" && value > 0, `${key} = ${value} is accepted`);
        }
      }
      for (const wrong of [
        { left: 1 },
        { top: 1 },
        { width: 9 },
        { height: 9 },
        { width: 0 },
        { height: 0 },
        { sourceWidth: 0 },
        { sourceHeight: 16385 },
        { stride: 31 },
        { stride: 65540 },
        { size: 255 },
        { w: 16385 },
        { x: 65536 },
      ])
        equal(native.pixelsBegin(pixels, encode({ ...plain(1), ...wrong })), errno.EINVAL);
      native.pixelsClose(pixels);
    },
  },
  pixelsDraw: {
    ...source(native.pixelsDraw),
    "nothing before a plan, and an empty rectangle": () => {
      const pixels = open();
      equal(native.pixelsDraw(pixels), DONE);
      for (const empty of [{ w: 0 }, { h: 0 }, { w: 0, h: 0 }]) {
        equal(native.pixelsBegin(pixels, encode({ ...plain(1), ...empty })), 0);
        equal(native.pixelsDraw(pixels), DONE);
      }
      native.pixelsClose(pixels);
    },
    "what the model draws, whatever the rectangle, scale and splits": () => {
      const next = random(1);
      const [a, b] = list(native.socketPair());
      const pixels = open(a);
      for (let round = 0; round < 400; round++) {
        const sourceWidth = 1 + next(round % 10 === 0 ? 300 : 40);
        const sourceHeight = 1 + next(40);
        const plan: Plan = { ...plain(0), sourceWidth, sourceHeight };
        const scaled = next(2) === 0;
        plan.width = scaled ? 1 + next(sourceWidth) : sourceWidth;
        plan.height = scaled ? 1 + next(sourceHeight) : sourceHeight;
        plan.left = next(3) === 0 ? next(20) : 0;
        plan.top = next(20);
        plan.stride = (plan.left + plan.width + next(5)) * PIXEL + next(3);
        plan.size = (plan.top + plan.height) * plan.stride + next(100);
        const whole = next(2) === 0;
        plan.x = whole ? 0 : next(sourceWidth + 10);
        plan.y = next(sourceHeight + 10);
        plan.w = whole ? sourceWidth + next(3) : next(60);
        plan.h = next(60);
        plan.framebuffer = freshFile();
        equal(native.pixelsClear(pixels, plan.framebuffer, plan.size), 0);
        native.seek(plan.framebuffer, 0);
        native.write(plan.framebuffer, new Uint8Array(plan.size).fill(0xee));
        draw(plan, b, pixels, (left) => Math.min(left, 1 + next(3000)));
        equal(contents(plan.framebuffer, plan.size + 1), model(plan));
        close(plan.framebuffer);
      }
      native.pixelsClose(pixels);
      close(a, b);
    },
    "lets others run within a large picture": () => {
      const [a, b] = list(native.socketPair());
      const pixels = open(a);
      const fd = freshFile();
      const side = { sourceWidth: 1024, sourceHeight: 1024, width: 1024, height: 1024, w: 1024, h: 1024 };
      const plan = { ...plain(fd), ...side, stride: 4096, size: 4096 * 1024 };
      draw(plan, b, pixels, (left) => Math.min(left, 100_000));
      equal(native.size(fd), plan.size);
      native.pixelsClose(pixels);
      close(a, b, fd);
    },
    "lets others run within a flood of narrow pictures": () => {
      const [a, b] = list(native.socketPair());
      const pixels = open(a);
      const fd = freshFile();
      const side = { sourceWidth: 8, sourceHeight: 1024, width: 8, height: 1024, h: 1024 };
      const narrow = { ...plain(fd), ...side, w: 1, size: 32 * 1024 };
      // One that is as wide as the screen, and shifted; and a narrow screen in a wide framebuffer, its bars written too.
      const shifted = { ...narrow, sourceWidth: 2, width: 2, x: 1, w: 2 };
      const barred = { ...narrow, sourceWidth: 1, width: 1, left: 512, stride: 4096, size: 4096 * 1024 };
      // 256 rows of a write each are a turn, however much more there is, and whichever picture they are of.
      for (const [turns, plan] of [
        [3, narrow],
        [4, narrow],
        [4, shifted],
        [4, barred],
        [4, narrow],
      ] as const) {
        const picture = new Uint8Array(plan.w * plan.h * PIXEL);
        for (let sent = 0; sent < picture.length; ) sent += done(native.write(b, picture.subarray(sent)));
        equal(native.pixelsBegin(pixels, encode(plan)), 0);
        for (let n = 0; n < turns; n++) equal(native.pixelsDraw(pixels), MORE);
        equal(native.pixelsDraw(pixels), DONE);
      }
      native.pixelsClose(pixels);
      close(a, b, fd);
    },
    "tells the sender's end and a framebuffer that cannot be written": () => {
      const [a, b] = list(native.socketPair());
      const pixels = open(a);
      equal(native.pixelsBegin(pixels, encode(plain(CLOSED))), 0);
      native.write(b, new Uint8Array(32));
      equal(native.pixelsDraw(pixels), errno.EBADF);
      equal(native.pixelsBegin(pixels, encode(plain(CLOSED))), 0);
      const fd = freshFile();
      equal(native.pixelsBegin(pixels, encode(plain(fd))), 0);
      close(b);
      equal(native.pixelsDraw(pixels), END);
      native.pixelsClose(pixels);
      close(a, fd);
    },
  },
  pixelsClear: {
    ...source((pixels) => native.pixelsClear(pixels, CLOSED, 0)),
    "as much as it is told": () => {
      const pixels = open();
      const fd = freshFile();
      equal(native.pixelsClear(pixels, fd, 200_001), 0);
      equal(native.size(fd), 200_001);
      equal(native.pixelsClear(pixels, fd, 0), 0);
      equal(native.pixelsClear(pixels, CLOSED, 1), errno.EBADF);
      throws(() => native.pixelsClear(pixels, Symbol("x") as unknown as number, 1));
      throws(() => native.pixelsClear(pixels, fd, Symbol("x") as unknown as number));
      native.pixelsClose(pixels);
      close(fd);
    },
  },
  pixelsClose: {
    ...harmlessFor((one) => native.pixelsClose(one as native.Pixels)),
    twice: () => {
      const pixels = open();
      native.pixelsClose(pixels);
      native.pixelsClose(pixels);
    },
  },
};
