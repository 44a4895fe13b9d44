import type {
  Framebuffers,
  PixelProgress,
  PixelSource,
  PixelView,
  Rectangle,
} from "../../agent/platform/port.ts";
import { SystemError } from "../../agent/platform/port.ts";
import type { Size } from "../../agent/screen/rfb.ts";
import { Random } from "./random.ts";

/**
 * A server's end of the screen's socket and a framebuffer, in memory. What the client reads is split at
 * random, and now and then it must wait although there is more.
 */
export class FakeScreen {
  /** Drawn so far, newest last. */
  readonly drawn: { readonly rectangle: Rectangle; readonly view: PixelView }[] = [];
  cleared = 0;
  /** Modes that were asked for; those in `refused` are not taken. */
  readonly modes: Size[] = [];
  refused = false;
  #mode: Size;
  #queue: number[] = [];
  #ended = false;
  #ready: (() => void) | null = null;
  readonly #random = new Random(7);

  constructor(private readonly largest: Size) {
    this.#mode = largest;
  }

  readonly framebuffers: Framebuffers = {
    mode: () => ({
      ...this.#mode,
      stride: 4 * this.largest.width,
      size: 4 * this.largest.width * this.largest.height,
      bitsPerPixel: 32,
      red: 16,
      green: 8,
      blue: 0,
    }),
    setMode: (_fd, width, height) => {
      this.modes.push({ width, height });
      if (this.refused) throw new SystemError("EINVAL", "framebuffer mode", `${width}x${height}`);
      this.#mode = { width, height };
    },
    pixelSource: () => this.#source(),
  };

  /** For `descriptors.onReadable` of the socket. */
  onReadable(ready: (() => void) | null): void {
    this.#ready = ready;
    if (this.#queue.length > 0 || this.#ended) setImmediate(() => this.#ready?.());
  }

  send(bytes: Iterable<number>): void {
    this.#queue = [...this.#queue, ...bytes];
    this.#ready?.();
  }

  end(): void {
    this.#ended = true;
    this.#ready?.();
  }

  /** A connection of its own, which has not ended. */
  #source(): PixelSource {
    this.#ended = false;
    let closed = false;
    let pixelsLeft = 0;
    const need = (count: number): PixelProgress | undefined => {
      if (closed) throw new TypeError("pixel source is closed");
      if (this.#queue.length < count) return this.#ended ? "end" : "wait";
      return this.#random.between(0, 9) === 0 ? "wait" : undefined;
    };
    return {
      take: (into) => {
        const stop = need(into.length);
        if (stop !== undefined) return stop;
        into.set(this.#queue.splice(0, into.length));
        return "done";
      },
      begin: (_framebuffer, view, rectangle) => {
        if (rectangle.width > 16384) throw new SystemError("EINVAL", "rectangle", String(rectangle.width));
        this.drawn.push({ rectangle, view });
        pixelsLeft = 4 * rectangle.width * rectangle.height;
      },
      draw: () => {
        while (pixelsLeft > 0) {
          const stop = need(1);
          if (stop !== undefined) return stop;
          pixelsLeft -= this.#queue.splice(0, Math.min(pixelsLeft, 1000)).length;
        }
        return "done";
      },
      clear: () => {
        this.cleared++;
      },
      close: () => {
        closed = true;
      },
    };
  }
}
