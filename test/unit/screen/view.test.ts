import { describe, expect, it, test } from "vitest";
import { fittingMode, guestPoint, viewIn } from "../../../agent/screen/view.ts";

const largest = { width: 1024, height: 768 };

function mode(width: number, height: number) {
  const pixel = { bitsPerPixel: 32, red: 16, green: 8, blue: 0 };
  return { width, height, stride: 4096, size: 4096 * 768, ...pixel };
}

/** What dom0's QEMU makes of a client's x on a screen of this width (hw/display/xenfb.c). */
function throughDom0(x: number, width: number): number {
  return Math.trunc((Math.trunc((x * 0x7fff) / width) * (width - 1)) / 0x7fff);
}

describe("the mode that is asked for", () => {
  test.each([
    [720, 400, 720, 400],
    [1024, 768, 1024, 768],
    [1280, 1024, 960, 768],
    [1920, 1080, 1024, 576],
    [800, 3000, 204, 768],
    [16384, 1, 1024, 1],
  ])("%i x %i: %i x %i", (width, height, w, h) => {
    expect(fittingMode({ width, height }, largest)).toEqual({ width: w, height: h });
  });
});

describe("where the screen goes", () => {
  it("a mode of its own size: all of it", () => {
    expect(viewIn(mode(800, 600), { width: 800, height: 600 }).target).toEqual({
      x: 0,
      y: 0,
      width: 800,
      height: 600,
    });
  });

  it("a larger mode: the middle", () => {
    expect(viewIn(mode(1024, 768), { width: 721, height: 400 }).target).toEqual({
      x: 151,
      y: 184,
      width: 721,
      height: 400,
    });
  });

  it("never outside of the framebuffer, whatever the guest's mode", () => {
    for (let width = 1; width <= 16384; width = Math.ceil(width * 1.7)) {
      for (let height = 1; height <= 16384; height = Math.ceil(height * 1.9)) {
        const { target } = viewIn(mode(1024, 768), { width, height });
        expect(target.x).toBeGreaterThanOrEqual(0);
        expect(target.y).toBeGreaterThanOrEqual(0);
        expect(target.x + target.width).toBeLessThanOrEqual(1024);
        expect(target.y + target.height).toBeLessThanOrEqual(768);
        expect(target.width).toBeLessThanOrEqual(width);
        expect(target.height).toBeLessThanOrEqual(height);
      }
    }
  });
});

describe("the pointer", () => {
  test.each([400, 480, 640, 720, 768, 800, 1024])(
    "is within one pixel of where the viewer put it, %i wide",
    (width) => {
      const view = viewIn(mode(width, 480), { width, height: 480 });
      for (let x = 0; x < width; x++) {
        const { x: arrived } = guestPoint(view, mode(width, 480), { x: throughDom0(x, width), y: 0 });
        expect(Math.abs(arrived - x)).toBeLessThanOrEqual(1);
        // For a guest that rounds a tablet's value down as well.
        const value = Math.trunc((arrived * 0x7fff) / width);
        expect(Math.abs(Math.trunc((value * width) / 0x8000) - x)).toBeLessThanOrEqual(1);
      }
    },
  );

  it("reaches every edge, also of a screen shrunk or beside bars", () => {
    const shown = mode(1024, 768);
    const small = viewIn(shown, { width: 640, height: 480 });
    expect(guestPoint(small, shown, { x: 0, y: 0 })).toEqual({ x: 0, y: 0 });
    expect(guestPoint(small, shown, { x: 1023, y: 767 })).toEqual({ x: 639, y: 479 });
    expect(guestPoint(small, shown, { x: 192 + 320, y: 144 + 240 })).toEqual({ x: 321, y: 241 });
    const large = viewIn(shown, { width: 2048, height: 1536 });
    expect(guestPoint(large, shown, { x: 1023, y: 767 })).toEqual({ x: 2047, y: 1535 });
    expect(guestPoint(large, shown, { x: -5, y: 4_000_000 })).toEqual({ x: 0, y: 1535 });
  });
});
