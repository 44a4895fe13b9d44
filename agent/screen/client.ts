import { concatBytes } from "../bytes/bytes.ts";
import { decodeText } from "../bytes/text.ts";
import type { Clock, Descriptors, Framebuffers, PixelSource } from "../platform/port.ts";
import { DescriptorStream, written } from "../platform/stream.ts";
import type { Canvas } from "./canvas.ts";
import type { ScreenCounters } from "./counters.ts";
import { RfbClosed, RfbError } from "./errors.ts";
import {
  attention,
  checkedSize,
  checkVersion,
  clientInit,
  clientSetup,
  decodeCutTextLength,
  decodeRectangle,
  decodeRectangleCount,
  decodeServerInit,
  encodings,
  keyEvent,
  pointerEvent,
  protocolVersion,
  type Size,
  securityNone,
  serverMessages,
  sizes,
  updateRequest,
} from "./rfb.ts";

/** Longest name of a desktop, reason, or text to be cut, in bytes; QEMU's own are far shorter. */
const longestText = 64 * 1024;
/** Pieces of messages after which everybody else gets a turn, however fast QEMU sends. */
const piecesATurn = 4096;
/** The same for changes of the mode, for each of which bars may have to be drawn all over the frame buffer. */
const resizesATurn = 4;
/**
 * Bytes that may wait for QEMU to take them. Beyond, a pointer's way is cut short, then keys are lost; and a QEMU that makes
 * us ask again and again without reading it has lost its screen.
 */
const mostUnsent = { pointer: 4 * 1024, key: 16 * 1024, request: 20 * 1024 };

interface Context {
  readonly clock: Clock;
  readonly descriptors: Descriptors;
  readonly framebuffers: Framebuffers;
  readonly counters: ScreenCounters;
  /** Milliseconds from an update that has been drawn to the request for the next. */
  readonly pause: () => number;
  /** Called when the guest's screen has got another size. */
  readonly resized?: (screen: Size) => void;
}

/**
 * QEMU's screen on a framebuffer: the client of QEMU's VNC server. One request is under way at a time, and
 * QEMU answers it when something has changed, so nothing runs here, and nothing is copied, while nothing
 * does.
 *
 * QEMU is not trusted: whatever it sends ends in pixels within the framebuffer, or in an {@link RfbError}.
 */
export class RfbClient {
  readonly #stream: DescriptorStream;
  readonly #pixels: PixelSource;
  #screen: Size;
  #unsent = 0;
  /** What waits for the write that is under way, if one is. */
  #queue: Uint8Array[] | undefined;
  #pieces = 0;
  /** The handshake is over: input may be sent. */
  #ready = false;
  #closed = false;
  #wake: () => void = () => {};

  /** @param fd connected socket, non-blocking, owned from here on */
  constructor(
    private readonly fd: number,
    private readonly canvas: Canvas,
    private readonly context: Context,
  ) {
    this.#stream = new DescriptorStream(context.descriptors, fd, "QEMU's screen");
    this.#pixels = context.framebuffers.pixelSource(fd);
    this.#screen = canvas.view.source;
  }

  /**
   * Draws until the connection ends. Call it once.
   *
   * @throws RfbClosed when it was closed, by either side; RfbError; SystemError
   */
  async run(): Promise<never> {
    try {
      await this.#handshake();
      for (;;) await this.#message();
    } finally {
      this.close();
    }
  }

  key(key: number, pressed: boolean): void {
    if (!this.#ready || this.#unsent > mostUnsent.key) return;
    this.context.counters.keys++;
    this.#send(keyEvent(key, pressed));
  }

  /** A point of the guest's screen, and a mask of `pointerButtons`. */
  pointer(x: number, y: number, buttons: number): void {
    if (!this.#ready || this.#unsent > mostUnsent.pointer) return;
    this.context.counters.pointerMoves++;
    this.#send(pointerEvent(x, y, buttons));
  }

  /** Makes QEMU look for changes often again, for a while. */
  attend(): void {
    if (this.#ready && this.#unsent === 0) this.#send(attention);
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.close();
    this.#pixels.close();
    this.#wake();
  }

  async #handshake(): Promise<void> {
    checkVersion(await this.#take(sizes.version));
    this.#send(protocolVersion);
    const [count = 0] = await this.#take(1);
    if (count === 0) throw new RfbError(`RFB: the server refuses: ${await this.#reason()}`);
    if (!(await this.#take(count)).includes(securityNone)) {
      throw new RfbError("RFB: the server wants a password");
    }
    this.#send(Uint8Array.of(securityNone));
    const result = await this.#take(sizes.securityResult);
    if (result.some((byte) => byte !== 0)) {
      throw new RfbError(`RFB: the server refuses: ${await this.#reason()}`);
    }
    this.#send(clientInit);
    const { nameLength, ...screen } = decodeServerInit(await this.#take(sizes.serverInit));
    await this.#skip(nameLength);
    this.#send(clientSetup());
    this.#resize(screen);
    this.#request(false);
    this.#ready = true;
  }

  async #message(): Promise<void> {
    const [type] = await this.#take(1);
    switch (type) {
      case serverMessages.framebufferUpdate:
        return this.#update();
      case serverMessages.bell:
        return;
      case serverMessages.cutText:
        return this.#skip(decodeCutTextLength(await this.#take(sizes.cutTextHeader)));
      default:
        throw new RfbError(`RFB: the server sent a message of type ${type}`);
    }
  }

  async #update(): Promise<void> {
    let drawn = false;
    let resized = false;
    for (let left = decodeRectangleCount(await this.#take(sizes.updateHeader)); left > 0; left--) {
      const { area, encoding } = decodeRectangle(await this.#take(sizes.rectangleHeader));
      switch (encoding) {
        case encodings.raw:
          this.#open().begin(this.canvas.fd, this.canvas.view, area);
          while (!(await this.#progress(this.#open().draw())));
          this.context.counters.rectangles++;
          this.context.counters.pixels += area.width * area.height;
          drawn = true;
          break;
        case encodings.desktopSize:
          this.#resize(checkedSize(area.width, area.height));
          resized = true;
          if (this.context.counters.resizes % resizesATurn === 0) await this.#sleep(0);
          break;
        case encodings.extendedKeyEvent:
          break;
        default:
          throw new RfbError(`RFB: the server sent a rectangle of encoding ${encoding}`);
      }
    }
    if (drawn) this.context.counters.updates++;
    if (resized) {
      // The request that is under way is for the old screen; QEMU keeps one, so this replaces it.
      this.#send(attention);
      this.#request(false);
    } else if (drawn) {
      const pause = this.context.pause();
      if (pause > 0) await this.#sleep(pause);
      this.#request(true);
    }
  }

  #resize(screen: Size): void {
    this.#screen = screen;
    this.canvas.show(screen);
    const { mode, view } = this.canvas;
    // Only the bars: what the screen itself covers is replaced by the update that follows, without flicker.
    const barred = view.target.width < mode.width || view.target.height < mode.height;
    if (barred) this.#open().clear(this.canvas.fd, mode.height * mode.stride);
    this.context.counters.resizes++;
    this.context.resized?.(screen);
  }

  /** @throws RfbError when QEMU does not read */
  #request(incremental: boolean): void {
    if (this.#unsent > mostUnsent.request)
      throw new RfbError(`RFB: the server has left ${this.#unsent} bytes unread`);
    this.#send(updateRequest(this.#screen, incremental));
  }

  #send(bytes: Uint8Array): void {
    if (this.#closed) return;
    if (this.#queue !== undefined) {
      this.#unsent += bytes.length;
      this.#queue.push(bytes);
      return;
    }
    const sent = this.#stream.write(bytes);
    if (sent === written) return;
    this.#unsent += bytes.length;
    this.#queue = [];
    // Reading from it fails as well, and tells run()'s caller.
    void this.#sendQueue(bytes.length, sent).catch(() => this.close());
  }

  /** One write at a time: each that waits costs far more than its bytes. */
  async #sendQueue(length: number, sent: Promise<void>): Promise<void> {
    await sent;
    this.#unsent -= length;
    while (this.#queue !== undefined && this.#queue.length > 0) {
      const bytes = concatBytes(this.#queue.splice(0));
      await this.#stream.write(bytes);
      this.#unsent -= bytes.length;
    }
    this.#queue = undefined;
  }

  async #take(size: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(size);
    if (++this.#pieces % piecesATurn === 0) await this.#sleep(0);
    while (!(await this.#progress(this.#open().take(bytes))));
    return bytes;
  }

  async #skip(length: number): Promise<void> {
    if (length > longestText) throw new RfbError(`RFB: the server sent a text of ${length} bytes`);
    if (length > 0) await this.#take(length);
  }

  async #reason(): Promise<string> {
    const length = new DataView((await this.#take(4)).buffer).getUint32(0);
    if (length > longestText) return `a reason of ${length} bytes`;
    return JSON.stringify(decodeText(await this.#take(length)).slice(0, 200));
  }

  /** True when the step is done; else waits until it is worth trying again. */
  async #progress(progress: ReturnType<PixelSource["draw"]>): Promise<boolean> {
    switch (progress) {
      case "done":
        return true;
      case "end":
        throw new RfbClosed("QEMU closed the screen's socket");
      case "more":
        await this.#sleep(0);
        break;
      case "wait":
        await this.#readable();
        break;
    }
    this.#open();
    return false;
  }

  #open(): PixelSource {
    if (this.#closed) throw new RfbClosed("the screen's socket was closed");
    return this.#pixels;
  }

  #readable(): Promise<void> {
    const { descriptors } = this.context;
    return new Promise((resolve) => {
      this.#wake = resolve;
      descriptors.onReadable(this.fd, () => {
        descriptors.onReadable(this.fd, null);
        resolve();
      });
    });
  }

  #sleep(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.context.clock.setTimer(milliseconds, resolve);
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }
}
