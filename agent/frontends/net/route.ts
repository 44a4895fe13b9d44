/**
 * A small rtnetlink client: one socket, requests answered in the order the kernel works through them, each datagram of them
 * with a deadline. Event-driven: nothing runs while nothing is asked and no interface comes or goes.
 */
import { type Clock, type Descriptors, type Sockets, SystemError, type Timer } from "../../platform/port.ts";
import { errnoName } from "./errno.ts";
import {
  changeLink,
  decodeLink,
  deleteLink,
  findLink,
  type Link,
  type LinkChange,
  listLinks,
  newBridge,
  newMacvtap,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_NEWLINK,
  removedLink,
} from "./link-messages.ts";
import {
  decodeMessages,
  decodeResult,
  encodeMessages,
  NetlinkFormatError,
  type NetlinkMessage,
  NLM_F_ACK,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_DUMP_INTR,
  NLM_F_EXCL,
  NLM_F_REQUEST,
  NLMSG_DONE,
  NLMSG_ERROR,
  NLMSG_NOOP,
  type Payload,
} from "./netlink.ts";
import {
  deleteIngress,
  newIngress,
  newRedirect,
  RTM_DELQDISC,
  RTM_NEWQDISC,
  RTM_NEWTFILTER,
} from "./traffic-messages.ts";

export interface RoutePlatform {
  readonly clock: Clock;
  readonly descriptors: Descriptors;
  readonly sockets: Pick<Sockets, "netlinkRoute">;
}

/** Milliseconds within which the kernel must have answered; it does so in less than one. */
const DEADLINE = 2_000;
/** The kernel never makes a dump's datagram longer; see netlink_recvmsg in Linux. */
const DATAGRAM_MAX = 32 * 1024;
/** How often a list of links may change while it is being read before that is an error. */
const LIST_ATTEMPTS = 5;

/** The kernel refused to do `action` (which names the interface), or did not answer. */
export class RouteError extends Error {
  override readonly name = "RouteError";
  constructor(
    readonly action: string,
    /** Symbolic errno; `ETIMEDOUT` when no answer came, `EPIPE` when the client was closed. */
    readonly code: string,
    detail: string | undefined,
  ) {
    super(`${action}: ${code}${detail === undefined ? "" : ` (${detail})`}`);
  }
}

/** Something for the kernel to do. */
export interface Request {
  /** What is asked, for the error: `set eth0 up`. */
  readonly action: () => string;
  readonly type: number;
  readonly flags: number;
  readonly payload: Payload;
}

/** What became of one of several requests. */
export type Outcome = RouteError | undefined;

/** Requests of one datagram, which the kernel works through in their order; the last one's end is that of all. */
interface Pending {
  readonly requests: readonly Request[];
  /** The sequence number of the first; the others follow it. */
  readonly first: number;
  /** Of those that failed, by their place; the last one's always comes at the end. */
  readonly outcomes: Outcome[];
  readonly answers: NetlinkMessage[];
  timer: Timer | undefined;
  resolve(ended: Pending): void;
  reject(error: Error): void;
}

/** What requests about an interface need to know of it: its index, and its name for the error. */
export type LinkName = Pick<Link, "index" | "name">;

/** To set something of an interface that is there. */
export function changing(link: LinkName, change: LinkChange): Request {
  const what = () => Object.entries(change).map(([key, value]) => `${key}=${value}`);
  return {
    action: () => `set ${link.name} ${what().join(" ")}`,
    type: RTM_NEWLINK,
    flags: 0,
    payload: changeLink(link.index, change),
  };
}

/**
 * First the place for filters on `from`, which {@link RouteClient.endRedirect} takes back; then the filter: from
 * then on each frame that comes in there leaves by `to` and is seen by nobody else.
 */
export function redirecting(from: LinkName, to: LinkName): readonly [Request, Request] {
  const action = () => `redirect ${from.name} to ${to.name}`;
  const flags = NLM_F_CREATE | NLM_F_EXCL;
  return [
    { action, type: RTM_NEWQDISC, flags, payload: newIngress(from.index) },
    { action, type: RTM_NEWTFILTER, flags, payload: newRedirect(from.index, to.index, []) },
  ];
}

export class RouteClient {
  readonly #platform: RoutePlatform;
  readonly #fd: number;
  readonly #pending = new Map<number, Pending>();
  readonly #removalHandlers = new Map<number, Set<() => void>>();
  readonly #buffer = new Uint8Array(DATAGRAM_MAX);
  #sequence = 0;
  #closed = false;

  constructor(platform: RoutePlatform) {
    this.#platform = platform;
    this.#fd = platform.sockets.netlinkRoute();
    platform.descriptors.onReadable(this.#fd, () => this.#receive());
  }

  /** Every interface there is, of one moment. */
  async links(): Promise<Link[]> {
    const action = () => "list network interfaces";
    for (let attempt = 0; attempt < LIST_ATTEMPTS; attempt++) {
      const answers = await this.#ask({ action, type: RTM_GETLINK, flags: NLM_F_DUMP, payload: listLinks() });
      const interrupted = answers.some((answer) => (answer.flags & NLM_F_DUMP_INTR) !== 0);
      if (!interrupted) return answers.filter((answer) => answer.type === RTM_NEWLINK).map(decodeLink);
    }
    throw new RouteError(action(), "EINTR", `the list kept changing, read ${LIST_ATTEMPTS} times`);
  }

  async link(name: string): Promise<Link> {
    const action = () => `look up ${name}`;
    const answers = await this.#ask({ action, type: RTM_GETLINK, flags: 0, payload: findLink(name) });
    const answer = answers.find(({ type }) => type === RTM_NEWLINK);
    if (answer === undefined) throw new NetlinkFormatError(`answer to "${action()}" describes no interface`);
    return decodeLink(answer);
  }

  async change(link: LinkName, change: LinkChange): Promise<void> {
    await this.#ask(changing(link, change));
  }

  /**
   * Carries all of `requests` out, in their order, each whatever became of those before it. Gives what became of each.
   * For one trip to the kernel and one answer in place of many: the stub domain's guest waits for them. Rejects when that
   * is unknown, with an error that names the last one.
   *
   * @param requests at least one, and no question for a list
   */
  async carryOut(requests: readonly Request[]): Promise<readonly Outcome[]> {
    const { outcomes } = await this.#send(requests);
    return requests.map((_, n) => outcomes[n]);
  }

  /** Creates a bridge and leaves it down; fails with EEXIST when the name is taken. */
  async createBridge(name: string): Promise<Link> {
    await this.#ask({
      action: () => `create bridge ${name}`,
      type: RTM_NEWLINK,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      payload: newBridge(name),
    });
    return this.link(name);
  }

  /** Creates a TAP that is one with `lower`, of the same address, and leaves it down. */
  async createMacvtap(name: string, lower: LinkName): Promise<Link> {
    await this.#ask({
      action: () => `create macvtap ${name} on ${lower.name}`,
      type: RTM_NEWLINK,
      flags: NLM_F_CREATE | NLM_F_EXCL,
      payload: newMacvtap(name, lower.index),
    });
    return this.link(name);
  }

  async deleteLink(link: LinkName): Promise<void> {
    await this.#ask({
      action: () => `delete ${link.name}`,
      type: RTM_DELLINK,
      flags: 0,
      payload: deleteLink(link.index),
    });
  }

  /** Undoes {@link redirecting}. */
  async endRedirect(from: LinkName): Promise<void> {
    await this.#ask({
      action: () => `end redirection of ${from.name}`,
      type: RTM_DELQDISC,
      flags: 0,
      payload: deleteIngress(from.index),
    });
  }

  /**
   * Calls `removed` once when interface `index` goes away; returns how to stop that. Should the kernel have
   * to drop notifications, `removed` is called for whatever turns out to be gone.
   */
  onRemoval(index: number, removed: () => void): () => void {
    const handlers = this.#removalHandlers.get(index) ?? new Set();
    this.#removalHandlers.set(index, handlers.add(removed));
    return () => {
      handlers.delete(removed);
      if (handlers.size === 0) this.#removalHandlers.delete(index);
    };
  }

  /** Idempotent. Requests under way fail with EPIPE. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#platform.descriptors.onReadable(this.#fd, null);
    this.#platform.descriptors.close(this.#fd);
    this.#removalHandlers.clear();
    this.#failAll(({ action }) => closed(action));
  }

  async #ask(request: Request): Promise<NetlinkMessage[]> {
    const { outcomes, answers } = await this.#send([request]);
    if (outcomes[0] !== undefined) throw outcomes[0];
    return answers;
  }

  #send(requests: readonly Request[]): Promise<Pending> {
    return new Promise((resolve, reject) => {
      const last = requests.length - 1;
      const { action } = requests[last] as Request;
      if (this.#closed) throw closed(action);
      // 0 marks notifications; 32 bits are the kernel's.
      if (this.#sequence > 0xffffffff - requests.length) this.#sequence = 0;
      const first = this.#sequence + 1;
      this.#sequence += requests.length;
      const pending: Pending = {
        ...{ requests, first, outcomes: [], answers: [], timer: undefined },
        ...{ resolve, reject },
      };
      // Only the last is acknowledged: the others' refusals come without being asked for.
      const messages = requests.map(({ type, flags, payload }, n) => {
        this.#pending.set(first + n, pending);
        const acknowledged = n === last && flags !== NLM_F_DUMP ? NLM_F_ACK : 0;
        return { type, flags: flags | NLM_F_REQUEST | acknowledged, sequence: first + n, payload };
      });
      try {
        const written = this.#platform.descriptors.write(this.#fd, encodeMessages(messages));
        if (written === null) throw new RouteError(action(), "EAGAIN", "the netlink socket takes no request");
      } catch (error) {
        this.#forget(pending);
        throw error instanceof SystemError ? new RouteError(action(), error.code, error.message) : error;
      }
      // The kernel works inside write(2), so that the answer is nearly always there by now. What is behind it can wait.
      this.#receive(first + last);
      if (!this.#pending.has(first + last)) return;
      pending.timer = this.#platform.clock.setTimer(DEADLINE, () => {
        this.#forget(pending);
        reject(new RouteError(action(), "ETIMEDOUT", `no answer from the kernel within ${DEADLINE} ms`));
      });
    });
  }

  #forget({ requests, first, timer }: Pending): void {
    timer?.cancel();
    for (let n = 0; n < requests.length; n++) this.#pending.delete(first + n);
  }

  /** All there is, or what there is up to the answer to one request. */
  #receive(wanted?: number): void {
    const { descriptors } = this.#platform;
    try {
      while (!this.#closed && (wanted === undefined || this.#pending.has(wanted))) {
        const length = descriptors.read(this.#fd, this.#buffer);
        if (length === null) return;
        // A copy: answers are kept until their request ends, the buffer is used again.
        for (const message of decodeMessages(this.#buffer.slice(0, length))) this.#take(message);
      }
    } catch (error) {
      if (error instanceof SystemError && error.code === "ENOBUFS") this.#checkRemovals();
      else this.#failAll(({ action }) => new RouteError(action(), "EPROTO", String(error)));
    }
  }

  #take(message: NetlinkMessage): void {
    if (message.type === NLMSG_NOOP) return;
    if (message.type === RTM_DELLINK) {
      const index = removedLink(message);
      if (index !== undefined) this.#announceRemoval(index);
      return;
    }
    const pending = this.#pending.get(message.sequence);
    if (pending === undefined) return;
    if (message.type !== NLMSG_ERROR && message.type !== NLMSG_DONE) {
      pending.answers.push(message);
      return;
    }
    const n = message.sequence - pending.first;
    const { errno, text } = decodeResult(message);
    if (errno !== 0)
      pending.outcomes[n] = new RouteError(pending.requests[n]?.action() ?? "", errnoName(errno), text);
    if (n < pending.requests.length - 1) return;
    this.#forget(pending);
    pending.resolve(pending);
  }

  #announceRemoval(index: number): void {
    const handlers = this.#removalHandlers.get(index);
    this.#removalHandlers.delete(index);
    for (const removed of handlers ?? []) removed();
  }

  /** ENOBUFS: the kernel had more to say than the socket holds and dropped some of it. */
  #checkRemovals(): void {
    if (this.#removalHandlers.size === 0) return;
    this.links().then(
      (links) => {
        const present = new Set(links.map((link) => link.index));
        for (const index of [...this.#removalHandlers.keys()])
          if (!present.has(index)) this.#announceRemoval(index);
      },
      // Without a list nobody can say that the interfaces live on; a joint torn down needlessly is the safe side.
      () => {
        for (const index of [...this.#removalHandlers.keys()]) this.#announceRemoval(index);
      },
    );
  }

  #failAll(errorOf: (last: Request) => Error): void {
    for (const pending of new Set(this.#pending.values())) {
      this.#forget(pending);
      pending.reject(errorOf(pending.requests.at(-1) as Request));
    }
  }
}

function closed(action: () => string): RouteError {
  return new RouteError(action(), "EPIPE", "the netlink socket was closed");
}
