import type { Clock, Platform } from "../platform/port.ts";
import type { PushedStream } from "../platform/stream.ts";
import { type Answered, Connection, type ConnectionOptions } from "./connection.ts";
import { type ConnectionLost, ProtocolError, WaitTimedOut, XenstoreError } from "./errors.ts";
import { Operations } from "./operations.ts";
import type { MessageName, RequestBody } from "./wire.ts";
import { openXenbus } from "./xenbus-device.ts";

/** How often a transaction is begun anew after EAGAIN. */
const transactionAttempts = 32;

export interface Watch {
  /** Idempotent. No event is delivered once it has been called; resolves when xenstored knows too. */
  stop(): Promise<void>;
}

/** A transaction's view of the store; refused once the transaction has ended, for its id may be another's by then. */
class Transaction extends Operations {
  #ended = false;

  async end(commit: boolean): Promise<void> {
    const ended = this.request("transactionEnd", commit, `transaction ${this.transactionId}`);
    this.#ended = true;
    await ended;
  }

  protected override send<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
    answered: Answered,
  ): void {
    if (this.#ended) throw new ProtocolError(`${type} ${operand}: asked of a transaction that has ended`);
    super.send(type, body, operand, answered);
  }
}

/** Requests that let all others go first; see {@link XenstoreClient.background}. */
class Background extends Operations {
  protected override send<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
    answered: Answered,
  ): void {
    this.connection.request(type, body, operand, answered, { background: true });
  }
}

/** The agent's connection to xenstored. See {@link Operations} for what it reads and writes. */
export class XenstoreClient extends Operations {
  #nextToken = 1;
  #lastTransaction: Promise<unknown> = Promise.resolve();

  constructor(
    stream: PushedStream,
    readonly clock: Clock,
    options: ConnectionOptions = {},
  ) {
    super(new Connection(stream, clock, options), 0);
  }

  /** Opens the kernel's device; throws `SystemError` when there is none (not a Xen domain, or no devtmpfs). */
  static connect(
    platform: Pick<Platform, "descriptors" | "clock">,
    options: ConnectionOptions = {},
  ): XenstoreClient {
    return new XenstoreClient(openXenbus(platform), platform.clock, options);
  }

  /** The same operations for what nobody waits for: sent in their order, when no other request waits. */
  get background(): Operations {
    return new Background(this.connection, 0);
  }

  /** Requests without a reply yet; while it is 0 and no watch fires, nothing here wakes. */
  get inFlight(): number {
    return this.connection.inFlight;
  }

  /** `/local/domain/<domid>`. */
  domainPath(domid: number): Promise<string> {
    return this.request("getDomainPath", domid, `domain ${domid}`);
  }

  /** False once the domain is gone, and before the toolstack introduced it. */
  isDomainIntroduced(domid: number): Promise<boolean> {
    return this.request("isDomainIntroduced", domid, `domain ${domid}`);
  }

  /**
   * Runs `body` in a transaction and commits it: all of its writes or none. `body` runs again, on a fresh
   * view, when somebody else's change got in between, so it must have no other effects; after many times
   * the EAGAIN is thrown. What `body` throws discards the transaction.
   *
   * One after the other: two of one client, side by side, would only get in each other's way. So `body` must
   * not wait for another one.
   *
   * @param attempts how often `body` is run at the most
   */
  transaction<T>(body: (tx: Operations) => Promise<T>, attempts = transactionAttempts): Promise<T> {
    const turn = this.#lastTransaction.then(() => this.#transact(body, attempts));
    this.#lastTransaction = turn.catch(() => {});
    return turn;
  }

  async #transact<T>(body: (tx: Operations) => Promise<T>, attempts: number): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      const id = await this.request("transactionStart", null, "transaction");
      if (id === 0) throw new ProtocolError("transaction id 0, which means none");
      const tx = new Transaction(this.connection, id);
      try {
        const result = await this.#run(tx, body);
        await tx.end(true);
        return result;
      } catch (error) {
        const conflict = error instanceof XenstoreError && error.code === "EAGAIN";
        if (!conflict || attempt >= attempts) throw error;
      }
    }
  }

  /**
   * Calls `onEvent` with the path of every change at or below `path`, and once at the start. Events may be
   * spurious: read what matters anew. `onLost` is called when the connection ends while the watch stands.
   *
   * Setting and stopping a watch blocks this thread for a round trip (see {@link Connection}): one watch
   * over a directory is better than one for each of its nodes.
   */
  async watch(
    path: string,
    onEvent: (path: string) => void,
    onLost: (error: ConnectionLost) => void = () => {},
  ): Promise<Watch> {
    const token = `w${this.#nextToken++}`;
    // Before the request: the first event can overtake the reply.
    this.connection.listen(token, { changed: onEvent, lost: onLost });
    try {
      await this.request("watch", { path, token }, path);
    } catch (error) {
      this.connection.unlisten(token);
      throw error;
    }
    let stopped: Promise<void> | undefined;
    return {
      stop: () => {
        this.connection.unlisten(token);
        stopped ??= this.request("unwatch", { path, token }, path).then(() => {});
        return stopped;
      },
    };
  }

  /** Longest wait for one reply from the next request on, in milliseconds; the connection is lost after it. */
  set deadline(milliseconds: number) {
    this.connection.deadline = milliseconds;
  }

  /** Idempotent. */
  close(): void {
    this.connection.close();
  }

  /** The body's error counts, not that of discarding what it left. */
  async #run<T>(tx: Transaction, body: (tx: Operations) => Promise<T>): Promise<T> {
    try {
      return await body(tx);
    } catch (error) {
      await tx.end(false).catch(() => {});
      throw error;
    }
  }
}

/**
 * Waits until `accept` likes the text of `path` (`undefined` while it does not exist), and returns that
 * text. Event-driven; throws {@link WaitTimedOut} after `milliseconds`.
 */
export async function waitFor(
  client: XenstoreClient,
  path: string,
  accept: (value: string | undefined) => boolean,
  milliseconds: number,
): Promise<string | undefined> {
  let finish: (value: string | undefined) => void = () => {};
  let fail: (error: unknown) => void = () => {};
  const accepted = new Promise<string | undefined>((resolve, reject) => {
    finish = resolve;
    fail = reject;
  });
  let last: string | undefined;
  let reading = false;
  let again = false;
  const look = async () => {
    again = true;
    if (reading) return;
    reading = true;
    try {
      // An event during a read means that the read may be old: once more then, however many came.
      while (again) {
        again = false;
        last = await client.tryReadText(path);
        if (accept(last)) finish(last);
      }
    } catch (error) {
      fail(error);
    } finally {
      reading = false;
    }
  };
  const timer = client.clock.setTimer(milliseconds, () => fail(new WaitTimedOut(path, last, milliseconds)));
  try {
    const watch = await client.watch(path, () => void look(), fail);
    try {
      return await accepted;
    } finally {
      void watch.stop().catch(() => {});
    }
  } finally {
    timer.cancel();
    accepted.catch(() => {});
  }
}
