import type { Logger } from "../log/logger.ts";
import type { Clock, Descriptors, VchanRing, Vchans } from "../platform/port.ts";
import { type ByteStream, StreamClosed } from "../platform/stream.ts";

/** Larger than either half of a ring (1 and 2 KiB), so one read empties it. */
const readChunk = 4096;

/** How long until the next try when no ring can be offered, doubling from the first to the last. */
const firstRetry = 100;
const lastRetry = 5_000;

/**
 * One client's use of a ring as a stream. Closing it leaves the ring to its owner.
 *
 * The event channel's descriptor stays readable until acknowledged, so it is watched the whole time that the
 * ring exists, whether or not anybody reads or writes.
 */
export class VchanStream implements ByteStream {
  #closed = false;
  #wake: (() => void)[] = [];
  #writes: Promise<void> = Promise.resolve();

  constructor(private readonly ring: VchanRing) {}

  /** Tells the stream that the peer notified. */
  notified(): void {
    const wake = this.#wake;
    this.#wake = [];
    for (const resume of wake) resume();
  }

  async read(): Promise<Uint8Array | null> {
    while (!this.#closed) {
      const buffer = new Uint8Array(readChunk);
      const count = this.ring.read(buffer);
      if (count > 0) return buffer.subarray(0, count);
      if (this.ring.state() !== "connected") return null;
      await this.#notification();
    }
    return null;
  }

  write(bytes: Uint8Array): Promise<void> {
    const done = this.#writes.then(() => this.#writeAll(bytes));
    this.#writes = done.catch(() => {});
    return done;
  }

  close(): void {
    this.#closed = true;
    this.notified();
  }

  async #writeAll(bytes: Uint8Array): Promise<void> {
    let rest = bytes;
    while (rest.length > 0) {
      if (this.#closed || this.ring.state() !== "connected") {
        throw new StreamClosed(`vchan: closed with ${rest.length} bytes unsent`);
      }
      const count = this.ring.write(rest);
      if (count === 0) await this.#notification();
      else rest = rest.subarray(count);
    }
  }

  #notification(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve));
  }
}

export interface VchanServerOptions {
  readonly vchans: Vchans;
  readonly descriptors: Descriptors;
  readonly clock: Clock;
  readonly log: Logger;
  /** What is served, for the log: `QMP`. */
  readonly label: string;
  /** The domain that may connect: dom0. */
  readonly domid: number;
  /** Xenstore path under which the ring is offered: `/local/domain/S/device-model/T/qmp-vchan`. */
  readonly path: string;
  /** Gets why there is no ring, and what to do: once, until the reason is another one. */
  complain(text: string): void;
  /** Removes the two nodes that a ring's offer consists of (xenstore rm); see {@link serveVchan}. */
  withdraw(): Promise<void>;
  /**
   * One client's session; closes the stream and resolves when it is over, to whether the client ended it
   * of itself. Must not reject.
   */
  session(client: ByteStream): Promise<boolean>;
}

export interface VchanServer {
  /** Sessions that have ended so far. */
  readonly sessions: number;
  /** Ends the session under way and withdraws the offer. Idempotent; resolves when the ring is gone. */
  stop(): Promise<void>;
}

/**
 * Serves sessions of one client of dom0's after the other, each over a ring of its own.
 *
 * The peer is `vchan-socket-proxy` in dom0 (Xen, tools/vchan). For each client of its unix socket it watches
 * `path` and maps whatever ring it finds there; when its client leaves, it clears `cli_live`, notifies and
 * unmaps. Two things follow from that:
 *
 * - A ring whose client is about to leave must not be found by the next client, which would connect to it
 *   successfully and then see it die. So the offer is withdrawn as soon as a client is there, and the session
 *   begins only after that: QEMU's greeting, for one, which every QMP client waits for, comes later.
 * - A client that does not wait for the greeting can still hand its ring to a next one before that. So a
 *   ring is given up only when, with the offer withdrawn, nobody is connected to it. (What such a client
 *   wrote before it left stands in the ring before the next one's words, and nothing tells them apart. libxl
 *   waits for the greeting.)
 *
 * Closing comes before the next offer: since 4.17 `libxenvchan_close` removes `path` itself.
 */
export function serveVchan(options: VchanServerOptions): VchanServer {
  return new Server(options);
}

class Server implements VchanServer {
  sessions = 0;
  #stopping = false;
  #stream: VchanStream | undefined;
  /** Resumes whatever waits for a client or for a retry. */
  #wake: (() => void) | undefined;
  readonly #done: Promise<void>;

  constructor(private readonly options: VchanServerOptions) {
    this.#done = this.#serve();
  }

  stop(): Promise<void> {
    this.#stopping = true;
    this.#stream?.close();
    this.#wake?.();
    return this.#done;
  }

  async #serve(): Promise<void> {
    let retry = firstRetry;
    /** Why there is no ring, once said: said again only when it changes. */
    let said = "";
    while (!this.#stopping) {
      const ring = this.#offer();
      if (typeof ring === "string") {
        if (ring !== said) this.options.complain(this.#refused(ring));
        said = ring;
        await this.#pause(retry);
        retry = Math.min(2 * retry, lastRetry);
        continue;
      }
      retry = firstRetry;
      said = "";
      try {
        await this.#use(ring);
      } catch (error) {
        this.options.log.error(
          { error: String(error) },
          `${this.options.label}: the vchan to dom0 broke: ${error}`,
        );
      }
      this.options.descriptors.onReadable(ring.fd, null);
      ring.close();
    }
  }

  #pause(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const resume = () => {
        timer.cancel();
        resolve();
      };
      const timer = this.options.clock.setTimer(milliseconds, resume);
      this.#wake = resume;
    });
  }

  /** The ring on offer, or why there is none. */
  #offer(): VchanRing | string {
    const { vchans, domid, path } = this.options;
    try {
      return vchans.listen(domid, path);
    } catch (error) {
      return String(error);
    }
  }

  #refused(error: string): string {
    const { label, path } = this.options;
    return `${label}: no vchan for dom0 at ${path}: ${error}; needs /dev/xen/gntalloc and /dev/xen/evtchn; tried again every ${lastRetry / 1000} s`;
  }

  async #use(ring: VchanRing): Promise<void> {
    this.options.descriptors.onReadable(ring.fd, () => {
      ring.acknowledge();
      this.#stream?.notified();
      this.#wake?.();
    });
    while (ring.state() === "waiting" && !this.#stopping) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    this.#wake = undefined;
    await this.#withdraw();
    // Only a client that left of itself can have been followed by another one on the same ring.
    while (ring.state() === "connected" && !this.#stopping) {
      if (!(await this.#session(ring))) break;
    }
  }

  async #withdraw(): Promise<void> {
    try {
      await this.options.withdraw();
    } catch (error) {
      // The session can go on; only a client that follows very quickly may fail.
      this.options.log.warn(
        { path: this.options.path, error: String(error) },
        `${this.options.label}: ${this.options.path} not withdrawn: ${error}`,
      );
    }
  }

  async #session(ring: VchanRing): Promise<boolean> {
    const stream = new VchanStream(ring);
    this.#stream = stream;
    const byClient = await this.options.session(stream);
    this.#stream = undefined;
    this.sessions++;
    return byClient;
  }
}
