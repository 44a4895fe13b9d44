import type { Logger } from "../log/logger.ts";
import type { Clock, Descriptors, Timer } from "../platform/port.ts";
import { decodeEvents, eventSize, type InputAction, InputReader, type Position } from "./evdev.ts";
import { qemuKey } from "./keys.ts";

/** What input goes to. */
export interface InputTarget {
  key(key: number, pressed: boolean): void;
  /** A point of the framebuffer. */
  pointer(x: number, y: number, buttons: number): void;
  /** Somebody did something. */
  active(): void;
}

/** A keyboard's typematic: how long a key is held before it repeats, and how often then, in milliseconds. */
const repeatDelay = 500;
const repeatInterval = 40;
/** Events taken from a device at a time. */
const eventsAtOnce = 64;

/**
 * Keyboard and pointer: from fbfront's input devices to QEMU.
 *
 * The kernel's input layer passes on changes only, so the repetition that a VNC client makes by pressing a
 * key again and again ends there. PS/2 and USB keyboards are expected to repeat, so the last key pressed is
 * repeated here, as the hardware would.
 */
export class Input {
  readonly #fds: number[] = [];
  /** Takes what waits on each device. */
  readonly #readers = new Map<number, () => void>();
  readonly #pressed = new Set<number>();
  #repeat: Timer | undefined;
  #repeating: number | undefined;

  /**
   * Opens `devices`; one that cannot be opened is logged and left out.
   *
   * @param position where the pointer was last; kept up to date
   */
  constructor(
    private readonly platform: { readonly clock: Clock; readonly descriptors: Descriptors },
    private readonly log: Logger,
    devices: readonly string[],
    private readonly target: InputTarget,
    private readonly position: Position = { x: 0, y: 0 },
  ) {
    for (const device of devices) this.#open(device);
  }

  /** Idempotent. Lets go of every key. */
  close(): void {
    for (const fd of this.#fds.splice(0)) this.#closeDevice(fd);
    this.#releaseAll();
  }

  #open(device: string): void {
    const { descriptors } = this.platform;
    try {
      const fd = descriptors.open(device, { access: "read", nonBlocking: true });
      const reader = new InputReader(this.position);
      const buffer = new Uint8Array(eventsAtOnce * eventSize);
      this.#fds.push(fd);
      const read = () => this.#read(fd, device, reader, buffer);
      this.#readers.set(fd, read);
      descriptors.onReadable(fd, read);
    } catch (error) {
      this.log.warn({ device }, `${device} takes no part in keyboard and pointer: ${String(error)}`);
    }
  }

  #read(fd: number, device: string, reader: InputReader, buffer: Uint8Array): void {
    try {
      const count = this.platform.descriptors.read(fd, buffer);
      if (count === null) return;
      for (const event of decodeEvents(buffer.subarray(0, count))) {
        for (const action of reader.feed(event)) this.#act(action);
      }
      if (count > 0) return;
    } catch (error) {
      // ENODEV: dom0 took the keyboard away.
      this.log.warn({ device }, `${device} is lost: ${String(error)}`);
    }
    this.#fds.splice(this.#fds.indexOf(fd), 1);
    this.#closeDevice(fd);
    this.#releaseAll();
  }

  #closeDevice(fd: number): void {
    this.#readers.delete(fd);
    this.platform.descriptors.onReadable(fd, null);
    this.platform.descriptors.close(fd);
  }

  #act(action: InputAction): void {
    switch (action.kind) {
      case "key": {
        const key = qemuKey(action.code);
        if (key !== undefined) this.#key(key, action.pressed);
        break;
      }
      case "pointer":
        this.target.pointer(action.x, action.y, action.buttons);
        break;
      case "lost":
        this.#releaseAll();
        break;
    }
    this.target.active();
  }

  #key(key: number, pressed: boolean): void {
    this.target.key(key, pressed);
    if (pressed) {
      this.#pressed.add(key);
      this.#startRepeat(key, repeatDelay);
    } else {
      this.#pressed.delete(key);
      if (this.#repeating === key) this.#stopRepeat();
    }
  }

  #startRepeat(key: number, delay: number): void {
    this.#stopRepeat();
    this.#repeating = key;
    const timer = this.platform.clock.setTimer(delay, () => {
      // On a busy host this may come late: a release that waits already must not be overtaken.
      for (const read of [...this.#readers.values()]) read();
      if (this.#repeat !== timer) return;
      this.target.key(key, true);
      this.#startRepeat(key, repeatInterval);
    });
    this.#repeat = timer;
  }

  #stopRepeat(): void {
    this.#repeat?.cancel();
    this.#repeat = undefined;
    this.#repeating = undefined;
  }

  #releaseAll(): void {
    this.#stopRepeat();
    for (const key of this.#pressed) this.target.key(key, false);
    this.#pressed.clear();
  }
}
