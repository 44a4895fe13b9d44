import type { Descriptors, VchanRing, Vchans } from "../../agent/platform/port.ts";
import type { ByteStream } from "../../agent/platform/stream.ts";

/** What the two halves of libxenvchan's smallest ring hold. */
const toServer = 1024;
const toClient = 2048;

/**
 * A ring in memory that both sides map: two bounded queues, whether each side lives, and the pending event
 * of the server's port.
 */
class SharedRing {
  readonly toServer: number[] = [];
  readonly toClient: number[] = [];
  /** libxenvchan's `cli_live`: 2 before anyone connected. */
  clientLive: 0 | 1 | 2 = 2;
  serverLive = true;
  pending = false;
  /** Wakes the client: its event channel. */
  wakeClient: () => void = () => {};

  constructor(
    readonly fd: number,
    private readonly wakeServer: () => void,
  ) {}

  notifyServer(): void {
    this.pending = true;
    this.wakeServer();
  }
}

/**
 * The vchan server side of the platform, and dom0 on the other end. A ring can be mapped as long as the
 * server has it open and by whoever still knows its offer, even one that is about to be closed.
 */
export class FakeVchans implements Vchans {
  /** The nodes in xenstore: what a client finds. */
  offer: SharedRing | undefined;
  /** Rings that are open: more than one is a leak. */
  open = 0;
  /** {@link holdDevices} was called. */
  held = false;
  /** Set to make `listen` fail. */
  failure: Error | undefined;
  #nextFd = 100;
  readonly #ready = new Map<number, () => void>();
  readonly #rings = new Map<number, SharedRing>();
  #watch: (() => void)[] = [];

  readonly descriptors: Pick<Descriptors, "onReadable"> = {
    onReadable: (fd, ready) => {
      if (ready) this.#ready.set(fd, ready);
      else this.#ready.delete(fd);
      this.#deliver(fd);
    },
  };

  holdDevices(): void {
    this.held = true;
  }

  listen(): VchanRing {
    if (this.failure) throw this.failure;
    const fd = this.#nextFd++;
    const shared = new SharedRing(fd, () => this.#deliver(fd));
    this.#rings.set(fd, shared);
    this.open++;
    this.offer = shared;
    for (const fire of this.#watch.splice(0)) fire();
    return new FakeRing(shared, () => {
      this.open--;
      this.#rings.delete(fd);
      if (this.#ready.has(fd)) throw new Error("a ring was closed while its descriptor was watched");
      // libxenvchan_close removes the path, whatever is there.
      this.offer = undefined;
    });
  }

  /** What the agent's xenstore client does for `withdraw`. */
  async withdraw(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.offer = undefined;
  }

  /** dom0's vchan-socket-proxy: waits for an offer, maps whatever it finds. */
  async connect(): Promise<FakeVchanClient> {
    for (;;) {
      const found = this.offer;
      if (found?.serverLive) return new FakeVchanClient(found);
      await new Promise<void>((resolve) => this.#watch.push(resolve));
    }
  }

  #deliver(fd: number): void {
    setImmediate(() => {
      if (!this.#rings.get(fd)?.pending) return;
      this.#ready.get(fd)?.();
      // Level-triggered: until it is acknowledged.
      if (this.#rings.get(fd)?.pending && this.#ready.has(fd)) this.#deliver(fd);
    });
  }
}

class FakeRing implements VchanRing {
  #closed = false;

  constructor(
    private readonly shared: SharedRing,
    private readonly onClose: () => void,
  ) {}

  get fd(): number {
    return this.shared.fd;
  }

  acknowledge(): void {
    this.shared.pending = false;
  }

  state(): "waiting" | "connected" | "closed" {
    return (["closed", "connected", "waiting"] as const)[this.shared.clientLive];
  }

  read(into: Uint8Array): number {
    const bytes = this.shared.toServer.splice(0, into.length);
    into.set(bytes);
    if (bytes.length > 0) this.shared.wakeClient();
    return bytes.length;
  }

  write(from: Uint8Array): number {
    const part = from.subarray(0, toClient - this.shared.toClient.length);
    this.shared.toClient.push(...part);
    if (part.length > 0) this.shared.wakeClient();
    return part.length;
  }

  close(): void {
    if (this.#closed) throw new Error("a ring was closed twice");
    this.#closed = true;
    this.shared.serverLive = false;
    this.shared.wakeClient();
    this.onClose();
  }
}

/** The client's end of a ring. */
export class FakeVchanClient implements ByteStream {
  #closed = false;
  #wake: (() => void)[] = [];

  constructor(private readonly shared: SharedRing) {
    shared.clientLive = 1;
    shared.wakeClient = () => {
      for (const resume of this.#wake.splice(0)) resume();
    };
    shared.notifyServer();
  }

  async read(): Promise<Uint8Array | null> {
    for (;;) {
      if (this.#closed) return null;
      const bytes = this.shared.toClient.splice(0);
      if (bytes.length > 0) {
        this.shared.notifyServer();
        return Uint8Array.from(bytes);
      }
      if (!this.shared.serverLive) return null;
      await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    for (let rest = bytes; rest.length > 0; ) {
      if (!this.shared.serverLive || this.#closed) throw new Error("the vchan is closed");
      const part = rest.subarray(0, toServer - this.shared.toServer.length);
      rest = rest.subarray(part.length);
      this.shared.toServer.push(...part);
      if (part.length > 0) this.shared.notifyServer();
      else await new Promise<void>((resolve) => this.#wake.push(resolve));
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.shared.clientLive = 0;
    this.shared.notifyServer();
    this.shared.wakeClient();
  }
}
