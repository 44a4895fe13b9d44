/**
 * A small rtnetlink client: one socket, requests answered in the order the kernel works through them, each
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
  encodeMessage,
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

interface Request {
  /** What is asked, for the error: `set eth0 up`. */
  readonly action: () => string;
  readonly type: number;
  readonly flags: number;
  readonly payload: Uint8Array;
}

interface Pending {
  readonly action: () => string;
  readonly answers: NetlinkMessage[];
  timer: Timer | undefined;
  resolve(answers: NetlinkMessage[]): void;
  reject(error: Error): void;
}

/** What requests about an interface need to know of it: its index, and its name for the error. */
export type LinkName = Pick<Link, "index" | "name">;

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
    const answers = await this.#ask({ action, type: RTM_GETLINK, flags: NLM_F_ACK, payload: findLink(name) });
    const answer = answers.find(({ type }) => type === RTM_NEWLINK);
    if (answer === undefined) throw new NetlinkFormatError(`answer to "${action()}" describes no interface`);
    return decodeLink(answer);
  }

  async change(link: LinkName, change: LinkChange): Promise<void> {
    const what = () => Object.entries(change).map(([key, value]) => `${key}=${value}`);
    await this.#ask({
      action: () => `set ${link.name} ${what().join(" ")}`,
      type: RTM_NEWLINK,
      flags: NLM_F_ACK,
      payload: changeLink(link.index, change),
    });
  }

  /** Creates a bridge and leaves it down; fails with EEXIST when the name is taken. */
  async createBridge(name: string): Promise<Link> {
    await this.#ask({
      action: () => `create bridge ${name}`,
      type: RTM_NEWLINK,
      flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
      payload: newBridge(name),
    });
    return this.link(name);
  }

  /** Creates a TAP that is one with `lower`, of the same address, and leaves it down. */
  async createMacvtap(name: string, lower: LinkName): Promise<Link> {
    await this.#ask({
      action: () => `create macvtap ${name} on ${lower.name}`,
      type: RTM_NEWLINK,
      flags: NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL,
      payload: newMacvtap(name, lower.index),
    });
    return this.link(name);
  }

  async deleteLink(link: LinkName): Promise<void> {
    await this.#ask({
      action: () => `delete ${link.name}`,
      type: RTM_DELLINK,
      flags: NLM_F_ACK,
      payload: deleteLink(link.index),
    });
  }

  /** From now on each frame that comes in on `from` leaves by `to` and is seen by nobody else. */
  async redirect(from: LinkName, to: LinkName): Promise<void> {
    const action = () => `redirect ${from.name} to ${to.name}`;
    const flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
    await this.#ask({ action, type: RTM_NEWQDISC, flags, payload: newIngress(from.index) });
    try {
      await this.#ask({
        action,
        type: RTM_NEWTFILTER,
        flags,
        payload: newRedirect(from.index, to.index, []),
      });
    } catch (error) {
      await this.endRedirect(from).catch(() => {});
      throw error;
    }
  }

  /** Undoes {@link redirect}. */
  async endRedirect(from: LinkName): Promise<void> {
    await this.#ask({
      action: () => `end redirection of ${from.name}`,
      type: RTM_DELQDISC,
      flags: NLM_F_ACK,
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
    this.#failAll((pending) => new RouteError(pending.action(), "EPIPE", "the netlink socket was closed"));
  }

  #ask({ action, type, flags, payload }: Request): Promise<NetlinkMessage[]> {
    return new Promise((resolve, reject) => {
      if (this.#closed) throw new RouteError(action(), "EPIPE", "the netlink socket was closed");
      // 0 marks notifications; 32 bits are the kernel's.
      this.#sequence = (this.#sequence % 0xffffffff) + 1;
      const sequence = this.#sequence;
      const request = encodeMessage({ type, flags: flags | NLM_F_REQUEST, sequence, payload });
      const pending: Pending = { action, answers: [], timer: undefined, resolve, reject };
      this.#pending.set(sequence, pending);
      try {
        const written = this.#platform.descriptors.write(this.#fd, request);
        if (written === null) throw new RouteError(action(), "EAGAIN", "the netlink socket takes no request");
      } catch (error) {
        this.#pending.delete(sequence);
        throw error instanceof SystemError ? new RouteError(action(), error.code, error.message) : error;
      }
      // The kernel works inside write(2), so that the answer is nearly always there by now. What is behind it can wait.
      this.#receive(sequence);
      if (!this.#pending.has(sequence)) return;
      pending.timer = this.#platform.clock.setTimer(DEADLINE, () => {
        this.#pending.delete(sequence);
        reject(new RouteError(action(), "ETIMEDOUT", `no answer from the kernel within ${DEADLINE} ms`));
      });
    });
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
      else this.#failAll((pending) => new RouteError(pending.action(), "EPROTO", String(error)));
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
    this.#pending.delete(message.sequence);
    pending.timer?.cancel();
    const { errno, text } = decodeResult(message);
    if (errno === 0) pending.resolve(pending.answers);
    else pending.reject(new RouteError(pending.action(), errnoName(errno), text));
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

  #failAll(errorOf: (pending: Pending) => Error): void {
    const all = [...this.#pending.values()];
    this.#pending.clear();
    for (const pending of all) {
      pending.timer?.cancel();
      pending.reject(errorOf(pending));
    }
  }
}
