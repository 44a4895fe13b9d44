import type { FramebufferMode, PixelView } from "../platform/port.ts";
import type { Size } from "./rfb.ts";

/**
 * The largest mode to ask the framebuffer for when the guest's screen has `source` size: that size itself,
 * or what remains of it when it is shrunk, its shape kept, until it fits `largest`.
 */
export function fittingMode(source: Size, largest: Size): Size {
  const scale = Math.min(1, largest.width / source.width, largest.height / source.height);
  return {
    width: Math.max(1, Math.floor(source.width * scale)),
    height: Math.max(1, Math.floor(source.height * scale)),
  };
}

/**
 * Where the guest's screen goes in a framebuffer of this mode: whole, in the middle, shrunk when it must be
 * and never enlarged.
 */
export function viewIn(mode: FramebufferMode, source: Size): PixelView {
  const { width, height } = fittingMode(source, mode);
  const target = {
    x: Math.floor((mode.width - width) / 2),
    y: Math.floor((mode.height - height) / 2),
    width,
    height,
  };
  return { source, target, stride: mode.stride, size: mode.size };
}

/**
 * The point of the guest's screen under a point of the framebuffer, the nearest one for a point beside it.
 *
 * @param mode of the framebuffer, whose points dom0's QEMU sends: it scales a client's 0..width-1 down by
 *   (width-1)/width and rounds down, twice (`xenfb_mouse_event`), which this makes good to within one.
 */
export function guestPoint(
  view: PixelView,
  mode: Size,
  point: { readonly x: number; readonly y: number },
): { x: number; y: number } {
  const axis = (at: number, length: number, origin: number, shown: number, source: number) => {
    // dom0's QEMU rounds down twice, to 0...32767 and from there to length - 1, so that two points may become one:
    // the larger of them, because QEMU and the guest's driver round down once more. The corner stays the corner.
    const scaled = Math.ceil(((at + 1) * 0x7fff) / Math.max(1, length - 1));
    const sent = at <= 0 ? 0 : Math.ceil((scaled * length) / 0x7fff) - 1;
    const inside = Math.floor(((sent - origin) * source) / shown);
    return Math.min(source - 1, Math.max(0, inside));
  };
  const { source, target } = view;
  return {
    x: axis(point.x, mode.width, target.x, target.width, source.width),
    y: axis(point.y, mode.height, target.y, target.height, source.height),
  };
}
