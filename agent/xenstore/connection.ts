import { type Logger, silentLogger } from "../log/logger.ts";
import type { Clock, Timer } from "../platform/port.ts";
import { SystemError } from "../platform/port.ts";
import { type PushedStream, written } from "../platform/stream.ts";
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
  type RequestBody,
} from "./wire.ts";

export interface ConnectionOptions {
  /** Longest wait for one reply, in milliseconds. Default 4000: what is wrong at boot is to be told within 5 s. */
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

/** What becomes of a request: one of the two is called, once. */
export interface Answered {
  /** Takes the reply's payload; throws {@link ProtocolError}. */
  answer(reply: Uint8Array): void;
  reject(error: XenstoreFailure): void;
}

/** How a request is sent, where not as all others are. */
export interface RequestOptions {
  readonly transactionId?: number;
  /** It lets all others go first, and keeps its place among its like. */
  readonly background?: boolean;
}

interface Pending {
  readonly requestId: number;
  readonly type: MessageName;
  readonly operand: string;
  readonly transactionId: number;
  readonly packet: Uint8Array;
  readonly answered: Answered;
}

const defaultDeadline = 4000;
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
  /** The request under way. */
  #current: Pending | undefined;
  /** In the order in which they were asked for; those in the background are sent when no other one waits. */
  readonly #waiting: Pending[] = [];
  readonly #background: Pending[] = [];
  readonly #listeners = new Map<string, WatchListener>();
  readonly #decoder = new PacketDecoder();
  #deadline: number;
  readonly #log: Logger;
  readonly #onLost: (error: ConnectionLost) => void;
  #nextId = 1;
  #timer: Timer | undefined;
  /** When the request under way is overdue, by the clock's rough time: each request would cost a system call otherwise. */
  #due = 0;
  /** `undefined` while the connection stands; then why it does not. */
  #lost: string | undefined;

  constructor(
    private readonly stream: PushedStream,
    private readonly clock: Clock,
    options: ConnectionOptions = {},
  ) {
    this.#deadline = options.deadline ?? defaultDeadline;
    this.#log = options.log ?? silentLogger;
    this.#onLost = options.onLost ?? (() => {});
    void this.#receive();
  }

  /** `operand` names the request in errors: a path, or a domid. Throws what keeps it from being sent. */
  request<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
    answered: Answered,
    { transactionId = 0, background = false }: RequestOptions = {},
  ): void {
    const payload = (messages[type].request.encode as (value: RequestBody<N>) => Uint8Array)(body);
    if (headerSize + payload.length > payloadLimit) throw new XenstoreError("E2BIG", type, operand);
    if (this.#lost !== undefined) throw new ConnectionLost(this.#lost, `${type} ${operand}`);
    const requestId = this.#takeId();
    const packet = encodePacket({ type, requestId, transactionId, payload });
    const queue = background ? this.#background : this.#waiting;
    queue.push({ requestId, type, operand, transactionId, packet, answered });
    if (this.#current === undefined) this.#sendNext();
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
    return this.#waiting.length + this.#background.length + (this.#current === undefined ? 0 : 1);
  }

  /** Longest wait for one reply from the next request on, in milliseconds. */
  set deadline(milliseconds: number) {
    this.#deadline = milliseconds;
  }

  /** Idempotent; requests under way fail, watches are told. */
  close(): void {
    this.#lose(closedByUs);
  }

  #sendNext(): void {
    const next = this.#waiting.shift() ?? this.#background.shift();
    this.#current = next;
    if (next === undefined) {
      this.#timer?.cancel();
      this.#timer = undefined;
      return;
    }
    this.#due = this.clock.roughly() + this.#deadline;
    this.#timer ??= this.#setTimer(this.#deadline);
    const sent = this.stream.write(next.packet);
    // As a rule; each promise costs the boot as much as the packet.
    if (sent === written) return;
    sent.catch((error: unknown) => {
      if (!(error instanceof SystemError)) this.#lose(String(error));
      else if (this.#current === next)
        this.#settle().answered.reject(new XenstoreError(error.code, next.type, next.operand));
    });
  }

  /** One timer for requests that follow each other without a break: it is set again when the first would be overdue. */
  #setTimer(milliseconds: number): Timer {
    return this.clock.setTimer(milliseconds, () => {
      const rest = this.#due - this.clock.roughly();
      this.#timer = rest > 0 ? this.#setTimer(rest) : undefined;
      if (rest <= 0) this.#timeOut();
    });
  }

  /** Nothing more can be asked: the request may still lie in the device's buffer. */
  #timeOut(): void {
    const { type, operand, answered } = this.#current as Pending;
    this.#current = undefined;
    answered.reject(new RequestTimedOut(type, operand, this.#deadline));
    this.#lose(`no reply to ${type} ${operand} within ${this.#deadline} ms`);
  }

  /** 0 is left to requests of nobody. */
  #takeId(): number {
    const id = this.#nextId;
    this.#nextId = id === 0xffff_ffff ? 1 : id + 1;
    return id;
  }

  /** The request under way, which is no more: the next one is. */
  #settle(): Pending {
    const pending = this.#current as Pending;
    this.#sendNext();
    return pending;
  }

  async #receive(): Promise<void> {
    try {
      const deliver = (packet: Packet) => this.#deliver(packet);
      await this.stream.receive((piece, count) => this.#decoder.decode(piece, deliver, count));
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
    const pending = packet.requestId === this.#current?.requestId ? this.#settle() : undefined;
    if (pending === undefined)
      throw new ProtocolError(
        `a ${packet.type} reply to request ${packet.requestId}, which is not under way`,
      );
    if (
      (packet.type !== pending.type && packet.type !== "error") ||
      packet.transactionId !== pending.transactionId
    ) {
      const detail = `a ${packet.type} reply (transaction ${packet.transactionId}) to ${pending.type} ${pending.operand} (transaction ${pending.transactionId})`;
      pending.answered.reject(new ProtocolError(detail));
      throw new ProtocolError(detail);
    }
    const { type, operand, answered } = pending;
    try {
      if (packet.type !== "error") answered.answer(packet.payload);
      else answered.reject(new XenstoreError(messages.error.reply.decode(packet.payload), type, operand));
    } catch (error) {
      answered.reject(error as XenstoreFailure);
      throw error;
    }
  }

  #lose(reason: string): void {
    if (this.#lost !== undefined) return;
    this.#lost = reason;
    this.#timer?.cancel();
    this.#timer = undefined;
    this.stream.close();
    const current = this.#current === undefined ? [] : [this.#current];
    this.#current = undefined;
    const pending = [...current, ...this.#waiting.splice(0), ...this.#background.splice(0)];
    const listeners = [...this.#listeners.values()];
    this.#listeners.clear();
    for (const { type, operand, answered } of pending) {
      answered.reject(new ConnectionLost(reason, `${type} ${operand}`));
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
