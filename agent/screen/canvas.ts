import { type FramebufferMode, type Framebuffers, type PixelView, SystemError } from "../platform/port.ts";
import { UnsuitableFramebuffer } from "./errors.ts";
import type { Size } from "./rfb.ts";
import { fittingMode, viewIn } from "./view.ts";

/** The framebuffer, in whatever mode shows the guest's screen best. */
export class Canvas {
  #mode: FramebufferMode;
  #view: PixelView;

  /** fbfront takes no mode wider or higher than its first: `xen_fbfront.video=` of the kernel's command line. */
  readonly largest: Size;

  /**
   * @param largest where it is known from before; otherwise the mode of the moment is the first
   * @throws UnsuitableFramebuffer, SystemError
   */
  constructor(
    private readonly framebuffers: Framebuffers,
    /** Descriptor of the open device; the caller's. */
    readonly fd: number,
    largest?: Size,
  ) {
    this.#mode = framebuffers.mode(fd);
    const { width, height, bitsPerPixel, red, green, blue } = this.#mode;
    if (bitsPerPixel !== 32 || red !== 16 || green !== 8 || blue !== 0) {
      throw new UnsuitableFramebuffer(
        `the framebuffer has ${bitsPerPixel} bits a pixel, red from ${red}, green from ${green}, blue from ${blue}; fbfront's 32, 16, 8, 0 are what can be drawn`,
      );
    }
    this.largest = largest ?? { width, height };
    this.#view = viewIn(this.#mode, { width, height });
  }

  get mode(): FramebufferMode {
    return this.#mode;
  }

  /** Where the guest's screen goes. */
  get view(): PixelView {
    return this.#view;
  }

  /** Makes room for a screen of this size, in its own mode where the driver and dom0 allow it. */
  show(source: Size): void {
    const { width, height } = fittingMode(source, this.largest);
    if (width !== this.#mode.width || height !== this.#mode.height) {
      try {
        this.framebuffers.setMode(this.fd, width, height);
      } catch (error) {
        // A backend without feature-resize: the mode stays, and the screen gets its place within it.
        if (!(error instanceof SystemError)) throw error;
      }
      this.#mode = this.framebuffers.mode(this.fd);
    }
    this.#view = viewIn(this.#mode, source);
  }
}
