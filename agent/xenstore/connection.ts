import { type Logger, silentLogger } from "../log/logger.ts";
import type { Clock, Timer } from "../platform/port.ts";
import { SystemError } from "../platform/port.ts";
import type { ByteStream } from "../platform/stream.ts";
import {
  ConnectionLost,
  ProtocolError,
  RequestTimedOut,
  XenstoreError,
  type XenstoreFailure,
} from "./errors.ts";
import {
  encodePacket,
  headerSize,
  type MessageName,
  messages,
  type Packet,
  PacketDecoder,
  payloadLimit,
  type ReplyBody,
  type RequestBody,
} from "./wire.ts";

export interface ConnectionOptions {
  /** Longest wait for one reply, in milliseconds. Default 5000. */
  readonly deadline?: number;
  readonly log?: Logger;
  /** Called once when the connection has ended, but for {@link Connection.close}: also while nothing is asked. */
  readonly onLost?: (error: ConnectionLost) => void;
}

/** What a watch calls; neither may throw for long: it is logged and dropped. */
export interface WatchListener {
  /** `path` as xenstored names it: relative when the watch was set on a relative path. */
  changed(path: string): void;
  lost(error: ConnectionLost): void;
}

interface Pending {
  readonly type: MessageName;
  readonly operand: string;
  readonly transactionId: number;
  readonly packet: Uint8Array;
  readonly background: boolean;
  resolve(packet: Packet): void;
  reject(error: XenstoreFailure): void;
}

const defaultDeadline = 5000;
const closedByUs = "closed by the agent";

/**
 * Requests and their replies over one stream: any number may be asked for, one is under way at a time.
 *
 * The stream is Linux's /dev/xen/xenbus, whose ways (drivers/xen/xenbus/xenbus_dev_frontend.c) shape this:
 * - the payload of a request is sent from the one buffer of the descriptor, later than write(2) returns, and
 *   the next write overwrites it: so the next request is written when the reply to the last one has come;
 * - one write is at most one packet, what follows in the same write is dropped: so one write a packet;
 * - header and payload together are at most 4096 bytes, 16 less than the protocol allows;
 * - WATCH and UNWATCH are carried out inside of write(2), which waits for xenstored, and their refusals
 *   come as write's errno rather than as a reply;
 * - events can come before the reply to the WATCH they belong to, and carry no req_id;
 * - it never ends and never would block on write: only a reply's deadline tells that xenstored is gone.
 */
export class Connection {
  /** In the order in which they were asked for; those in the background are sent when no other one waits. */
  readonly #pending = new Map<number, Pending>();
  /** The request under way, 0 for none. */
  #current = 0;
  readonly #listeners = new Map<string, WatchListener>();
  readonly #decoder = new PacketDecoder();
  #deadline: number;
  readonly #log: Logger;
  readonly #onLost: (error: ConnectionLost) => void;
  #nextId = 1;
  #timer: Timer | undefined;
  /** `undefined` while the connection stands; then why it does not. */
  #lost: string | undefined;

  constructor(
    private readonly stream: ByteStream,
    private readonly clock: Clock,
    options: ConnectionOptions = {},
  ) {
    this.#deadline = options.deadline ?? defaultDeadline;
    this.#log = options.log ?? silentLogger;
    this.#onLost = options.onLost ?? (() => {});
    void this.#receive();
  }

  /**
   * `operand` names the request in errors: a path, or a domid. A request in the background lets all others go
   * first, and keeps its place among its like.
   */
  async request<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
    { transactionId = 0, background = false }: { transactionId?: number; background?: boolean } = {},
  ): Promise<ReplyBody<N>> {
    const payload = (messages[type].request.encode as (value: RequestBody<N>) => Uint8Array)(body);
    if (headerSize + payload.length > payloadLimit) throw new XenstoreError("E2BIG", type, operand);
    const packet = await this.#exchange(type, payload, operand, transactionId, background);
    if (packet.type === "error") {
      throw new XenstoreError(messages.error.reply.decode(packet.payload), type, operand);
    }
    try {
      return messages[type].reply.decode(packet.payload) as ReplyBody<N>;
    } catch (error) {
      if (error instanceof ProtocolError) this.#lose(error.message);
      throw error;
    }
  }

  /** Events of `token` go to `listener` from now on. */
  listen(token: string, listener: WatchListener): void {
    if (this.#lost === undefined) this.#listeners.set(token, listener);
  }

  unlisten(token: string): void {
    this.#listeners.delete(token);
  }

  /** Requests without a reply yet. */
  get inFlight(): number {
    return this.#pending.size;
  }

  /** Longest wait for one reply from the next request on, in milliseconds. */
  set deadline(milliseconds: number) {
    this.#deadline = milliseconds;
  }

  /** Idempotent; requests under way fail, watches are told. */
  close(): void {
    this.#lose(closedByUs);
  }

  #exchange(
    type: MessageName,
    payload: Uint8Array,
    operand: string,
    transactionId: number,
    background: boolean,
  ): Promise<Packet> {
    return new Promise((resolve, reject) => {
      if (this.#lost !== undefined) {
        reject(new ConnectionLost(this.#lost, `${type} ${operand}`));
        return;
      }
      const requestId = this.#takeId();
      const packet = encodePacket({ type, requestId, transactionId, payload });
      this.#pending.set(requestId, { type, operand, transactionId, packet, background, resolve, reject });
      if (this.#current === 0) this.#sendNext();
    });
  }

  #sendNext(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
    const next = this.#next();
    this.#current = next?.[0] ?? 0;
    if (next === undefined) return;
    const [requestId, { type, operand, packet }] = next;
    this.#timer = this.clock.setTimer(this.#deadline, () => this.#timeOut(requestId));
    this.stream.write(packet).catch((error: unknown) => {
      if (error instanceof SystemError) {
        this.#settle(requestId)?.reject(new XenstoreError(error.code, type, operand));
      } else {
        this.#lose(String(error));
      }
    });
  }

  #next(): [number, Pending] | undefined {
    for (const entry of this.#pending) if (!entry[1].background) return entry;
    return this.#pending.entries().next().value;
  }

  /** Nothing more can be asked: the request may still lie in the device's buffer. */
  #timeOut(requestId: number): void {
    const pending = this.#pending.get(requestId);
    if (pending === undefined) return;
    const { type, operand } = pending;
    this.#pending.delete(requestId);
    pending.reject(new RequestTimedOut(type, operand, this.#deadline));
    this.#lose(`no reply to ${type} ${operand} within ${this.#deadline} ms`);
  }

  /** 0 is left to requests of nobody; after 2^32 requests an id still in flight is skipped. */
  #takeId(): number {
    let id = this.#nextId;
    while (id === 0 || this.#pending.has(id)) id = (id + 1) >>> 0;
    this.#nextId = (id + 1) >>> 0;
    return id;
  }

  #settle(requestId: number): Pending | undefined {
    const pending = this.#pending.get(requestId);
    this.#pending.delete(requestId);
    if (requestId === this.#current) this.#sendNext();
    return pending;
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const chunk = await this.stream.read();
        if (chunk === null) break;
        for (const packet of this.#decoder.decode(chunk)) this.#deliver(packet);
        if (this.#lost !== undefined) return;
      }
      const { partial } = this.#decoder;
      this.#lose(partial === 0 ? "cut between packets" : `cut ${partial} bytes into a packet`);
    } catch (error) {
      this.#lose(error instanceof Error ? error.message : String(error));
    }
  }

  #deliver(packet: Packet): void {
    if (packet.type === "watchEvent") {
      const { path, token } = messages.watchEvent.reply.decode(packet.payload);
      // An event of a watch just stopped is still on its way now and then.
      const listener = this.#listeners.get(token);
      if (listener !== undefined) this.#guard(path, () => listener.changed(path));
      return;
    }
    const pending = packet.requestId === this.#current ? this.#settle(packet.requestId) : undefined;
    if (pending === undefined)
      throw new ProtocolError(
        `a ${packet.type} reply to request ${packet.requestId}, which is not under way`,
      );
    if (
      (packet.type !== pending.type && packet.type !== "error") ||
      packet.transactionId !== pending.transactionId
    ) {
      const detail = `a ${packet.type} reply (transaction ${packet.transactionId}) to ${pending.type} ${pending.operand} (transaction ${pending.transactionId})`;
      pending.reject(new ProtocolError(detail));
      throw new ProtocolError(detail);
    }
    pending.resolve(packet);
  }

  #lose(reason: string): void {
    if (this.#lost !== undefined) return;
    this.#lost = reason;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.stream.close();
    const pending = [...this.#pending.values()];
    const listeners = [...this.#listeners.values()];
    this.#pending.clear();
    this.#listeners.clear();
    for (const { type, operand, reject } of pending) {
      reject(new ConnectionLost(reason, `${type} ${operand}`));
    }
    const error = new ConnectionLost(reason);
    for (const listener of listeners) this.#guard("lost", () => listener.lost(error));
    if (reason !== closedByUs) this.#guard("lost", () => this.#onLost(error));
  }

  #guard(what: string, call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#log.error(
        { error: String(error), what },
        `xenstore: a watch's listener failed: ${String(error)}`,
      );
    }
  }
}
