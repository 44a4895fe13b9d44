import type { RemoteProcess } from "../../../scripts/lab/channel.ts";
import type { LabHost } from "../../../scripts/lab/host.ts";
import { PATIENCE } from "../../../scripts/lab/patience.ts";
import type { Picture } from "./picture.ts";

/**
 * A VNC viewer of dom0's, by way of the lab's control channel: enough of RFB 3.8 (RFC 6143) to look at a
 * screen, type and point. It shares no code with the agent's, so that no mistake can hide in both.
 */
export class Viewer {
  width = 0;
  height = 0;
  /** Updates with pixels in them. */
  updates = 0;
  #pixels = Buffer.alloc(0);
  #received: Buffer[] = [];
  #length = 0;
  #wake: () => void = () => {};
  #changed: () => void = () => {};
  #failure: Error | undefined;

  private constructor(private readonly socket: RemoteProcess) {
    socket.on("stdout", (chunk) => {
      this.#received.push(Buffer.from(chunk));
      this.#length += chunk.length;
      this.#wake();
    });
    socket.exited.then(
      (status) => this.#fail(new Error(`the VNC connection ended with ${status}`)),
      (error) => this.#fail(error),
    );
  }

  static async connect(host: LabHost, address = "TCP4:127.0.0.1:5900"): Promise<Viewer> {
    const viewer = new Viewer(host.spawn(["socat", "-", address]));
    await viewer.#handshake();
    void viewer.#receive().catch((error) => viewer.#fail(error));
    return viewer;
  }

  get picture(): Picture {
    const rgb = new Uint8Array(3 * this.width * this.height);
    for (let i = 0; i < this.width * this.height; i++) {
      rgb[3 * i] = this.#pixels[4 * i + 2] ?? 0;
      rgb[3 * i + 1] = this.#pixels[4 * i + 1] ?? 0;
      rgb[3 * i + 2] = this.#pixels[4 * i] ?? 0;
    }
    return { width: this.width, height: this.height, rgb };
  }

  /** Waits for a screen that `accept` likes; checked after each update. */
  async until(accept: () => boolean, what: string, seconds = 30): Promise<void> {
    const patience = seconds * PATIENCE;
    const deadline = Date.now() + 1000 * patience;
    while (!accept()) {
      if (this.#failure !== undefined) throw this.#failure;
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`the viewer does not show ${what} after ${patience} s`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  /** QEMU's number of a key, as its extended key event has it, and its keysym, which counts where QEMU has a layout. */
  key(key: number, pressed: boolean, keysym = 0): void {
    const bytes = Buffer.alloc(12);
    bytes[0] = 255;
    bytes.writeUInt16BE(pressed ? 1 : 0, 2);
    bytes.writeUInt32BE(keysym, 4);
    bytes.writeUInt32BE(key, 8);
    this.socket.write(bytes);
  }

  pointer(x: number, y: number, buttons: number): void {
    const bytes = Buffer.alloc(6);
    bytes[0] = 5;
    bytes[1] = buttons;
    bytes.writeUInt16BE(x, 2);
    bytes.writeUInt16BE(y, 4);
    this.socket.write(bytes);
  }

  /**
   * Ctrl-Alt-1. dom0's QEMU opens its VNC server before the guest's screen is there, and from version 9.1 on
   * goes on showing that there is none until somebody asks for it so.
   */
  async select(): Promise<void> {
    const keys = [
      [0x1d, 0xffe3],
      [0x38, 0xffe9],
      [0x02, 0x31],
    ] as const;
    for (const [key, keysym] of keys) this.key(key, true, keysym);
    for (const [key, keysym] of keys.toReversed()) this.key(key, false, keysym);
    // The placeholder has 640 x 480 pixels, which no picture of the test's guest has.
    await this.until(() => this.width !== 640, "the guest's screen instead of a placeholder");
  }

  close(): void {
    this.#failure ??= new Error("closed");
    this.socket.kill(15);
  }

  async #handshake(): Promise<void> {
    await this.#take(12);
    this.socket.write(Buffer.from("RFB 003.008\n"));
    const [count = 0] = await this.#take(1);
    await this.#take(count);
    this.socket.write(Buffer.of(1));
    const result = await this.#take(4);
    if (result.readUInt32BE(0) !== 0) throw new Error("dom0's VNC server wants a password");
    this.socket.write(Buffer.of(1));
    const init = await this.#take(24);
    await this.#take(init.readUInt32BE(20));
    this.#resize(init.readUInt16BE(0), init.readUInt16BE(2));
    this.socket.write(Buffer.of(0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0));
    const encodings = [0, -223, -258];
    const bytes = Buffer.alloc(4 + 4 * encodings.length);
    bytes[0] = 2;
    bytes.writeUInt16BE(encodings.length, 2);
    for (const [i, encoding] of encodings.entries()) bytes.writeInt32BE(encoding, 4 + 4 * i);
    this.socket.write(bytes);
    this.#request(false);
  }

  #resize(width: number, height: number): void {
    this.width = width;
    this.height = height;
    this.#pixels = Buffer.alloc(4 * width * height);
  }

  #request(incremental: boolean): void {
    const bytes = Buffer.alloc(10);
    bytes[0] = 3;
    bytes[1] = incremental ? 1 : 0;
    bytes.writeUInt16BE(this.width, 6);
    bytes.writeUInt16BE(this.height, 8);
    this.socket.write(bytes);
  }

  async #receive(): Promise<never> {
    for (;;) {
      const [type] = await this.#take(1);
      if (type === 0) await this.#update();
      else if (type === 3) await this.#take((await this.#take(7)).readUInt32BE(3));
      else if (type !== 2) throw new Error(`a message of type ${type}`);
    }
  }

  async #update(): Promise<void> {
    let resized = false;
    let drawn = false;
    for (let left = (await this.#take(3)).readUInt16BE(1); left > 0; left--) {
      const head = await this.#take(12);
      const [x, y, width, height] = [0, 2, 4, 6].map((at) => head.readUInt16BE(at)) as [
        number,
        number,
        number,
        number,
      ];
      const encoding = head.readInt32BE(8);
      if (encoding === -223) {
        this.#resize(width, height);
        resized = true;
      } else if (encoding === 0) {
        const pixels = await this.#take(4 * width * height);
        for (let row = 0; row < height; row++) {
          const from = 4 * width * row;
          pixels.copy(this.#pixels, 4 * (this.width * (y + row) + x), from, from + 4 * width);
        }
        drawn = true;
      } else if (encoding !== -258) throw new Error(`a rectangle of encoding ${encoding}`);
    }
    if (drawn) this.updates++;
    if (resized) this.#request(false);
    else if (drawn) this.#request(true);
    this.#changed();
  }

  async #take(size: number): Promise<Buffer> {
    while (this.#length < size) {
      if (this.#failure !== undefined) throw this.#failure;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const all = this.#received.length === 1 ? this.#received[0] : Buffer.concat(this.#received);
    const bytes = all ?? Buffer.alloc(0);
    this.#received = [bytes.subarray(size)];
    this.#length -= size;
    return bytes.subarray(0, size);
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#wake();
    this.#changed();
  }
}
