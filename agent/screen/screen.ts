import { waitForFrontends } from "../frontends/wait.ts";
import { type Frontend, parseState, XenbusState } from "../frontends/xenbus.ts";
import type { Logger } from "../log/logger.ts";
import type { Platform, Timer } from "../platform/port.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { Looks } from "../xenstore/looks.ts";
import { screenSocket } from "./arguments.ts";
import { Canvas } from "./canvas.ts";
import { RfbClient } from "./client.ts";
import { type ScreenCounters, zeroCounters } from "./counters.ts";
import { RfbClosed, ScreenError } from "./errors.ts";
import type { Position } from "./evdev.ts";
import { Input, type InputTarget } from "./input.ts";
import type { Size } from "./rfb.ts";
import { guestPoint } from "./view.ts";

/** How long dom0 may take to offer the screen before the log says what is missing, in milliseconds. */
const patience = 5_000;
/** After the last key or motion, somebody counts as watching for this long. */
const attentionSpan = 60_000;
/** While somebody is, QEMU is kept from looking more and more seldom: see `attention` in rfb.ts. */
const attentionInterval = 200;
/** While nobody is known to be, QEMU is asked for no more than ten updates a second. */
const unattendedPause = 100;
/** A screen that broke is tried again, ever more seldom while it goes on breaking, in milliseconds. */
const retry = { first: 1_000, last: 60_000 };
/** The guest chooses its modes, as often as it likes: the log names so many that do not fit. */
const mostTold = 8;

export interface ScreenContext {
  readonly platform: Pick<Platform, "clock" | "descriptors" | "files" | "sockets" | "framebuffers">;
  readonly store: XenstoreClient;
  readonly log: Logger;
  /** `device/vfb/0`. */
  readonly framebuffer: Frontend;
  /** `device/vkbd/0`, if any. */
  readonly keyboards: readonly Frontend[];
  readonly socket?: string;
}

/**
 * The guest's screen in dom0, and keyboard and pointer from there. Call once QEMU has answered on QMP.
 * Whatever fails here is logged and costs the screen alone.
 *
 * No signal says whether anybody watches: dom0's QEMU tells fbfront nothing of its clients (its
 * XENFB_TYPE_REFRESH_PERIOD is ignored by Linux, and follows clients' wishes only). Somebody who types or
 * moves the pointer does watch; without that, updates are slowed, not stopped.
 */
export class Screen {
  readonly counters: ScreenCounters = zeroCounters();
  #session: Session | undefined;
  #stopped = false;
  readonly #lasting: Lasting = { told: new Set(), position: { x: 0, y: 0 } };
  /** Until the next try, and how long the last one was put off. */
  #retry: Timer | undefined;
  #pause = retry.first / 2;
  #opened = 0;

  constructor(private readonly context: ScreenContext) {
    void this.#follow();
  }

  /** One line for `stubdom status`. */
  get summary(): string {
    return this.#session?.summary ?? "not shown";
  }

  /** Idempotent. The watch goes with the connection: taking it back waits for xenstored. */
  stop(): void {
    this.#stopped = true;
    this.#retry?.cancel();
    this.#session?.close();
    this.#session = undefined;
  }

  /** Shows the screen whenever, and as long as, dom0 offers one. */
  async #follow(): Promise<void> {
    const { store, log, framebuffer } = this.context;
    const node = `${framebuffer.path}/state`;
    const looks = new Looks(() => this.#look(node).catch((error) => this.#failed(error)));
    try {
      await this.#firstWait();
      if (this.#stopped) return;
      await store.watch(node, () => void looks.take());
      if (this.#stopped) this.stop();
    } catch (error) {
      log.warn({}, `no screen: ${String(error)}`);
    }
  }

  async #look(node: string): Promise<void> {
    const state = parseState(node, await this.context.store.tryReadText(node));
    if (state === XenbusState.Connected) this.#open();
    else this.#close(`${node} is ${state ?? "gone"}`);
  }

  /** Only to say early what is missing. */
  async #firstWait(): Promise<void> {
    const { store, platform, log, framebuffer, keyboards } = this.context;
    const devices = [framebuffer, ...keyboards];
    for (const outcome of await waitForFrontends(store, platform, devices, patience)) {
      if (!outcome.connected) log.warn({}, outcome.error.message);
    }
  }

  #open(): void {
    if (this.#stopped || this.#session !== undefined) return;
    this.#retry?.cancel();
    try {
      const session = new Session(this.context, this.counters, this.#lasting);
      this.#session = session;
      this.#opened = this.context.platform.clock.now();
      void session.run().catch((error) => {
        if (this.#session === session) this.#failed(error);
      });
    } catch (error) {
      this.#failed(error);
    }
  }

  #close(why: string): void {
    this.#retry?.cancel();
    if (this.#session === undefined) return;
    this.context.log.info({}, `screen: ${why}, no longer shown`);
    this.#session.close();
    this.#session = undefined;
  }

  /** Tries again later: a guest without a screen would otherwise be so until its end. */
  #failed(error: unknown): void {
    const { clock } = this.context.platform;
    const lived = this.#session === undefined ? 0 : clock.now() - this.#opened;
    this.#session?.close();
    this.#session = undefined;
    if (this.#stopped) return;
    this.#pause = lived > retry.last ? retry.first : Math.min(2 * this.#pause, retry.last);
    const seconds = this.#pause / 1000;
    // As it does at its own end, where nothing is wrong.
    if (error instanceof RfbClosed)
      this.context.log.debug({}, `screen: ${error.message}; the next try is in ${seconds} s`);
    else
      this.context.log.warn(
        {},
        `the screen is no longer shown: ${String(error)}; the next try is in ${seconds} s`,
      );
    this.#retry?.cancel();
    this.#retry = clock.setTimer(this.#pause, () => this.#open());
  }
}

/** What outlives a connection that broke. */
interface Lasting {
  /** The framebuffer's first mode: later ones stay when its device is opened again. */
  largest?: Size;
  /** Which screens the log has said not to fit. */
  readonly told: Set<string>;
  /** Of the pointer: Linux keeps an axis that does not change to itself. */
  readonly position: Position;
}

/** One connection from QEMU's screen to the framebuffer. */
class Session implements InputTarget {
  readonly #canvas: Canvas;
  readonly #client: RfbClient;
  readonly #input: Input;
  #lastActive = Number.NEGATIVE_INFINITY;
  #attention: Timer | undefined;
  #closed = false;
  summary = "connecting to QEMU";

  constructor(
    private readonly context: ScreenContext,
    counters: ScreenCounters,
    private readonly lasting: Lasting,
  ) {
    const { platform, log, framebuffer, keyboards } = context;
    const { clock, descriptors, files, framebuffers, sockets } = platform;
    const devices = keyboards.flatMap((keyboard) => keyboard.linuxDevices(files));
    const [device] = framebuffer.linuxDevices(files);
    if (device === undefined) throw new ScreenError(`${framebuffer.path} has no framebuffer device`);
    const fd = descriptors.open(device, { access: "read-write" });
    let socket: number | undefined;
    try {
      this.#canvas = new Canvas(framebuffers, fd, lasting.largest);
      lasting.largest = this.#canvas.largest;
      socket = sockets.connectUnix(context.socket ?? screenSocket);
      this.#client = new RfbClient(socket, this.#canvas, {
        clock,
        descriptors,
        framebuffers,
        counters,
        pause: () => (this.#isAttended() ? 0 : unattendedPause),
        resized: (screen) => this.#resized(screen),
      });
    } catch (error) {
      if (socket !== undefined) descriptors.close(socket);
      descriptors.close(fd);
      throw error;
    }
    this.#input = new Input(platform, log, devices, this, lasting.position);
    log.info({}, `screen: QEMU's on ${device}, input from ${devices.join(", ") || "nowhere"}`);
  }

  run(): Promise<never> {
    return this.#client.run();
  }

  /** Idempotent. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#attention?.cancel();
    this.#input.close();
    this.#client.close();
    this.context.platform.descriptors.close(this.#canvas.fd);
  }

  key(key: number, pressed: boolean): void {
    this.#client.key(key, pressed);
  }

  pointer(x: number, y: number, buttons: number): void {
    const point = guestPoint(this.#canvas.view, this.#canvas.mode, { x, y });
    this.#client.pointer(point.x, point.y, buttons);
  }

  #resized({ width, height }: Size): void {
    const { mode, view } = this.#canvas;
    this.summary = `${width}x${height}`;
    if (view.target.width < width || view.target.height < height) {
      this.summary += `, shrunk to ${view.target.width}x${view.target.height}`;
      const { told } = this.lasting;
      if (told.size >= mostTold || told.has(this.summary)) return;
      told.add(this.summary);
      this.context.log.info(
        {},
        `screen: ${this.summary}; for more, add xen_fbfront.video=MEGABYTES,WIDTH,HEIGHT to stubdomain_cmdline, and as many megabytes to stubdomain_memory`,
      );
    } else this.context.log.debug({}, `screen: ${this.summary} in ${mode.width}x${mode.height}`);
  }

  active(): void {
    this.#lastActive = this.context.platform.clock.now();
    this.#attention ??= this.#scheduleAttention();
  }

  #isAttended(): boolean {
    return this.context.platform.clock.now() - this.#lastActive < attentionSpan;
  }

  #scheduleAttention(): Timer {
    return this.context.platform.clock.setTimer(attentionInterval, () => {
      this.#client.attend();
      this.#attention = this.#isAttended() && !this.#closed ? this.#scheduleAttention() : undefined;
    });
  }
}
