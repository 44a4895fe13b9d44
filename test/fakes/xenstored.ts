import { decodeText, encodeText } from "../../agent/bytes/text.ts";
import { SystemError } from "../../agent/platform/port.ts";
import type { ByteStream, PushedStream } from "../../agent/platform/stream.ts";
import {
  encodePacket,
  headerSize,
  type MessageName,
  messages,
  type Packet,
  PacketDecoder,
  type Permission,
  payloadLimit,
} from "../../agent/xenstore/wire.ts";
import { Random } from "./random.ts";
import { type MemoryEnd, memoryStream } from "./stream.ts";

interface Node {
  readonly value: Uint8Array;
  readonly permissions: readonly Permission[];
  readonly generation: number;
}

interface Change {
  readonly path: string;
  /** The nodes that went with a removal; `undefined` for a change of `path` alone. */
  readonly removed?: readonly string[];
}

/** Most bytes of a node that a guest writes: xenstored's quota node-size, as it is by default. */
const mostOfNode = 2048;

/** There from the start. A guest hears of others' coming and going only where it has been permitted to (XSA-115). */
const dom0Alone = ["/", "/local", "/local/domain", "/local/domain/0", "@introduceDomain", "@releaseDomain"];

/** A refusal, by the name that goes over the wire. */
class Refusal extends Error {
  constructor(readonly code: string) {
    super(code);
  }
}

/** The tree of nodes; a transaction works on a copy of it. */
class Store {
  constructor(readonly nodes: Map<string, Node>) {}

  copy(): Store {
    return new Store(new Map(this.nodes));
  }

  children(path: string): string[] {
    const prefix = path === "/" ? "/" : `${path}/`;
    const found = [...this.nodes.keys()].filter((key) => key.startsWith(prefix) && key !== "/");
    return found.map((key) => key.slice(prefix.length)).filter((name) => !name.includes("/"));
  }

  below(path: string): string[] {
    return [...this.nodes.keys()].filter((key) => key === path || key.startsWith(`${path}/`));
  }
}

interface Transaction {
  readonly store: Store;
  readonly base: Store;
  readonly touched: Set<string>;
  readonly apply: ((store: Store) => Change[])[];
}

interface WatchEntry {
  readonly connection: FakeXenbus;
  readonly asked: string;
  readonly absolute: string;
  readonly token: string;
}

export interface FakeXenstoredOptions {
  readonly seed?: number;
  /** Most bytes of one read at the client; default 7, see {@link memoryStream}. */
  readonly largestPiece?: number;
  /** Sends replies that wait together in random order, as the protocol permits. Default false. */
  readonly reorder?: boolean;
}

/**
 * A xenstored in memory, seen through Linux's /dev/xen/xenbus by {@link connect}: watches, transactions that
 * conflict, permissions by domain, long directories in parts. Its own methods act as dom0, at once.
 */
export class FakeXenstored {
  readonly #store = new Store(new Map());
  readonly #watches: WatchEntry[] = [];
  readonly #targets = new Map<number, number>();
  readonly #introduced = new Set<number>([0]);
  readonly #refusals: { type: MessageName; path: string; code: string; times: number }[] = [];
  #generation = 1;
  #nextTransaction = 1;
  /** Every request in the order it came, `read /a/b`. */
  readonly requests: string[] = [];
  /** Called with each of them, before it is answered. */
  onRequest: (request: string, domid: number) => void = () => {};
  /** Types that this xenstored does not know, answered with ENOSYS. */
  readonly unsupported = new Set<MessageName>();

  constructor(readonly options: FakeXenstoredOptions = {}) {
    for (const path of dom0Alone) {
      this.#store.nodes.set(path, {
        value: new Uint8Array(),
        permissions: [{ domid: 0, access: "none" }],
        generation: 1,
      });
    }
  }

  /** The kernel's device as domain `domid` opens it. */
  connect(domid: number): FakeXenbus {
    this.#introduced.add(domid);
    return new FakeXenbus(this, domid);
  }

  /** Writes as dom0, or as domain `owner` which then owns what is created. */
  set(path: string, value: string | Uint8Array, owner = 0): void {
    const bytes = typeof value === "string" ? encodeText(value) : value;
    this.#announce(this.write(this.#store, owner, path, bytes, true));
  }

  setAll(values: Readonly<Record<string, string>>, owner = 0): void {
    for (const [path, value] of Object.entries(values)) this.set(path, value, owner);
  }

  get(path: string): string | undefined {
    const node = this.#store.nodes.get(path);
    return node === undefined ? undefined : decodeText(node.value);
  }

  permit(path: string, permissions: readonly Permission[]): void {
    this.#announce(this.setPermissions(this.#store, 0, path, permissions));
  }

  remove(path: string): void {
    this.#announce(this.unlink(this.#store, 0, path));
  }

  /** Gives `domid` the rights of `target` beside its own, as SET_TARGET does. */
  setTarget(domid: number, target: number): void {
    this.#targets.set(domid, target);
  }

  /** The toolstack introduces a domain: watches on @introduceDomain fire, dom0's alone unless others are permitted. */
  introduceDomain(domid: number): void {
    this.#introduced.add(domid);
    this.#announce([{ path: "@introduceDomain" }]);
  }

  /** The domain ends: watches on @releaseDomain fire, as for {@link introduceDomain}. */
  releaseDomain(domid: number): void {
    this.#introduced.delete(domid);
    this.#announce([{ path: "@releaseDomain" }]);
  }

  /** Refuses the next `times` requests of this type and path (as the client writes it). */
  refuse(type: MessageName, path: string, code: string, times = 1): void {
    this.#refusals.push({ type, path, code, times });
  }

  get watchCount(): number {
    return this.#watches.length;
  }

  // --- what a connection calls ------------------------------------------------------------------------

  /** The payload of the reply; throws {@link Refusal}. `after` runs once the reply is on its way. */
  answer(connection: FakeXenbus, packet: Packet, after: (run: () => void) => void): Uint8Array {
    const operand = operandOf(packet);
    const request = `${packet.type} ${operand}`.trim();
    this.requests.push(request);
    this.onRequest(request, connection.domid);
    if (this.unsupported.has(packet.type)) throw new Refusal("ENOSYS");
    const refusal = this.#refusals.find((r) => r.type === packet.type && r.path === operand && r.times > 0);
    if (refusal !== undefined) {
      refusal.times--;
      throw new Refusal(refusal.code);
    }
    const { domid } = connection;
    const { payload } = packet;
    const transaction = this.#transaction(connection, packet);
    const store = transaction?.store ?? this.#store;
    const resolve = (path: string) => connection.resolve(path);
    const change = (path: string, apply: (store: Store) => Change[]) => {
      transaction?.touched.add(path);
      // What is created hangs on its parent: whether that is there decides, then and at the end.
      for (let at = path; !store.nodes.has(at); ) {
        at = parentOf(at);
        transaction?.touched.add(at);
      }
      const changes = apply(store);
      if (transaction === undefined) after(() => this.#announce(changes));
      else transaction.apply.push(apply);
      return messages.write.reply.encode(null);
    };
    const look = (path: string) => {
      transaction?.touched.add(path);
      return this.#readable(store, domid, path);
    };
    switch (packet.type) {
      case "read":
        return look(resolve(messages.read.request.decode(payload))).value;
      case "directory": {
        const path = resolve(messages.directory.request.decode(payload));
        look(path);
        const list = messages.directory.reply.encode(store.children(path));
        if (list.length > payloadLimit) throw new Refusal("E2BIG");
        return list;
      }
      case "directoryPart": {
        const { path, offset } = messages.directoryPart.request.decode(payload);
        const node = look(resolve(path));
        return directoryPart(store.children(resolve(path)), offset, node.generation);
      }
      case "write": {
        const { path, value } = messages.write.request.decode(payload);
        const kept = value.slice();
        return change(resolve(path), (s) => this.write(s, domid, resolve(path), kept, false));
      }
      case "mkdir": {
        const path = resolve(messages.mkdir.request.decode(payload));
        return change(path, (s) =>
          s.nodes.has(path) ? [] : this.write(s, domid, path, new Uint8Array(), false),
        );
      }
      case "remove": {
        const path = resolve(messages.remove.request.decode(payload));
        return change(path, (s) => this.unlink(s, domid, path));
      }
      case "getPermissions":
        return messages.getPermissions.reply.encode(
          look(resolve(messages.getPermissions.request.decode(payload))).permissions,
        );
      case "setPermissions": {
        const { path, permissions } = messages.setPermissions.request.decode(payload);
        return change(resolve(path), (s) => this.setPermissions(s, domid, resolve(path), permissions));
      }
      case "watch": {
        const { path, token } = messages.watch.request.decode(payload);
        const entry = { connection, asked: path, absolute: resolve(path), token };
        this.#watches.push(entry);
        after(() => connection.event(path, token));
        return messages.watch.reply.encode(null);
      }
      case "unwatch": {
        const { path, token } = messages.unwatch.request.decode(payload);
        const at = this.#watches.findIndex(
          (w) => w.connection === connection && w.asked === path && w.token === token,
        );
        if (at < 0) throw new Refusal("ENOENT");
        this.#watches.splice(at, 1);
        return messages.unwatch.reply.encode(null);
      }
      case "transactionStart": {
        const id = this.#nextTransaction++;
        connection.transactions.set(id, {
          store: this.#store.copy(),
          base: this.#store.copy(),
          touched: new Set(),
          apply: [],
        });
        return messages.transactionStart.reply.encode(id);
      }
      case "transactionEnd": {
        connection.transactions.delete(packet.transactionId);
        if (transaction === undefined) throw new Refusal("ENOENT");
        if (messages.transactionEnd.request.decode(payload)) {
          const changes = this.#commit(transaction);
          after(() => this.#announce(changes));
        }
        return messages.transactionEnd.reply.encode(null);
      }
      case "getDomainPath":
        return messages.getDomainPath.reply.encode(
          `/local/domain/${messages.getDomainPath.request.decode(payload)}`,
        );
      case "isDomainIntroduced":
        return messages.isDomainIntroduced.reply.encode(
          this.#introduced.has(messages.isDomainIntroduced.request.decode(payload)),
        );
      default:
        throw new Refusal(domid === 0 ? "ENOSYS" : "EACCES");
    }
  }

  drop(connection: FakeXenbus): void {
    for (let at = this.#watches.length - 1; at >= 0; at--) {
      if (this.#watches[at]?.connection === connection) this.#watches.splice(at, 1);
    }
  }

  // --- the store --------------------------------------------------------------------------------------

  #transaction(connection: FakeXenbus, packet: Packet): Transaction | undefined {
    if (packet.transactionId === 0) return undefined;
    const transaction = connection.transactions.get(packet.transactionId);
    if (transaction === undefined) throw new Refusal("ENOENT");
    return transaction;
  }

  #commit(transaction: Transaction): Change[] {
    for (const path of transaction.touched) {
      const then = transaction.base.nodes.get(path)?.generation;
      if (this.#store.nodes.get(path)?.generation !== then) throw new Refusal("EAGAIN");
    }
    return transaction.apply.flatMap((apply) => apply(this.#store));
  }

  #may(node: Node, domid: number, wanted: "read" | "write"): boolean {
    return [domid, this.#targets.get(domid)].some((id) => {
      if (id === undefined) return false;
      const [owner, ...others] = node.permissions;
      if (id === 0 || owner?.domid === id) return true;
      const access = (others.find((permission) => permission.domid === id) ?? owner)?.access;
      return access === "both" || access === wanted;
    });
  }

  /**
   * Of a node that is not there a domain is told so only where it has the right to the nearest one above it
   * (`errno_from_parents` in xenstored's core.c): it is to learn nothing of what others have.
   */
  #absent(store: Store, domid: number, path: string, wanted: "read" | "write"): Refusal {
    let above: Node | undefined;
    for (let at = path; above === undefined && at !== "/"; above = store.nodes.get(at)) at = parentOf(at);
    return new Refusal(above !== undefined && this.#may(above, domid, wanted) ? "ENOENT" : "EACCES");
  }

  #readable(store: Store, domid: number, path: string): Node {
    const node = store.nodes.get(path);
    if (node === undefined) throw this.#absent(store, domid, path, "read");
    if (!this.#may(node, domid, "read")) throw new Refusal("EACCES");
    return node;
  }

  private write(store: Store, domid: number, path: string, value: Uint8Array, asDom0: boolean): Change[] {
    const old = store.nodes.get(path);
    if (old !== undefined) {
      if (!asDom0 && !this.#may(old, domid, "write")) throw new Refusal("EACCES");
      if (!asDom0) this.#checkSize(store, domid, path, { ...old, value });
      store.nodes.set(path, { ...old, value, generation: ++this.#generation });
      return [{ path }];
    }
    const parentPath = parentOf(path);
    if (!store.nodes.has(parentPath)) this.write(store, domid, parentPath, new Uint8Array(), asDom0);
    const parent = store.nodes.get(parentPath);
    if (parent === undefined || (!asDom0 && !this.#may(parent, domid, "write"))) throw new Refusal("EACCES");
    const [owner, ...others] = parent.permissions;
    // What a guest creates is its own; what dom0 creates belongs to whom the parent belongs.
    const created = { domid: domid === 0 ? (owner?.domid ?? 0) : domid, access: owner?.access ?? "none" };
    const node = { value, permissions: [created, ...others], generation: ++this.#generation };
    if (!asDom0) this.#checkSize(store, domid, path, node);
    store.nodes.set(path, node);
    store.nodes.set(parentPath, { ...parent, generation: ++this.#generation });
    return [{ path }];
  }

  /** A node is counted with its header, its permissions and the names of its children. */
  #checkSize(store: Store, domid: number, path: string, { value, permissions }: Node): void {
    if (domid === 0) return;
    const names = store.children(path).reduce((sum, name) => sum + name.length + 1, 0);
    if (16 + 8 * permissions.length + value.length + names > mostOfNode) throw new Refusal("ENOSPC");
  }

  private unlink(store: Store, domid: number, path: string): Change[] {
    const node = store.nodes.get(path);
    const parentPath = parentOf(path);
    const parent = store.nodes.get(parentPath);
    if (node === undefined) {
      const absent = this.#absent(store, domid, path, "write");
      if (parent === undefined || absent.code !== "ENOENT") throw absent;
      return [];
    }
    if (!this.#may(node, domid, "write")) throw new Refusal("EACCES");
    const removed = store.below(path);
    for (const key of removed) store.nodes.delete(key);
    if (parent !== undefined) store.nodes.set(parentPath, { ...parent, generation: ++this.#generation });
    return [{ path, removed }];
  }

  private setPermissions(
    store: Store,
    domid: number,
    path: string,
    permissions: readonly Permission[],
  ): Change[] {
    const node = store.nodes.get(path);
    if (node === undefined) throw this.#absent(store, domid, path, "write");
    if (domid !== 0 && node.permissions[0]?.domid !== domid) throw new Refusal("EACCES");
    store.nodes.set(path, { ...node, permissions, generation: ++this.#generation });
    return [{ path }];
  }

  #announce(changes: readonly Change[]): void {
    for (const { path, removed } of changes) {
      for (const { connection, asked, absolute, token } of [...this.#watches]) {
        const prefix = absolute === "/" ? "/" : `${absolute}/`;
        if (path === absolute || path.startsWith(prefix)) {
          const node = this.#store.nodes.get(path);
          if (node !== undefined && !this.#may(node, connection.domid, "read")) continue;
          connection.event(asked === absolute ? path : connection.relative(path), token);
        } else if (removed?.includes(absolute)) {
          connection.event(asked, token);
        }
      }
    }
  }
}

/**
 * One open /dev/xen/xenbus with the kernel's ways: one packet a write, at most 4096 bytes with its header,
 * refused watches as write's errno, events whose req_id is garbage.
 */
export class FakeXenbus implements ByteStream, PushedStream {
  readonly transactions = new Map<number, Transaction>();
  readonly #client: MemoryEnd;
  readonly #server: MemoryEnd;
  readonly #random: Random;
  #held: Packet[] | undefined;
  #waiting: Packet[] = [];
  #cutAfter = Number.POSITIVE_INFINITY;

  constructor(
    private readonly daemon: FakeXenstored,
    readonly domid: number,
  ) {
    const { seed = 1, largestPiece } = daemon.options;
    this.#random = new Random(seed);
    [this.#client, this.#server] = memoryStream({
      seed,
      ...(largestPiece === undefined ? {} : { largestPiece }),
    });
  }

  read(): Promise<Uint8Array | null> {
    return this.#client.read();
  }

  async receive(take: (piece: Uint8Array, count: number) => void): Promise<void> {
    for (let piece = await this.read(); piece !== null; piece = await this.read()) {
      take(piece, piece.length);
      // Used anew, as a descriptor's is.
      piece.fill(0xee);
    }
  }

  async write(bytes: Uint8Array): Promise<void> {
    if (this.#client.closed) throw new SystemError("EBADF", "write", "/dev/xen/xenbus");
    if (bytes.length > payloadLimit) throw new SystemError("EINVAL", "write", "/dev/xen/xenbus");
    const packets: Packet[] = [];
    new PacketDecoder().decode(bytes, (packet) => packets.push(packet));
    const [packet] = packets;
    if (packet === undefined || packets.length > 1 || bytes.length !== headerSize + packet.payload.length) {
      throw new Error("a write to /dev/xen/xenbus that is not one packet: the kernel drops the rest");
    }
    const followUps: (() => void)[] = [];
    let payload: Uint8Array;
    try {
      payload = this.daemon.answer(this, packet, (run) => followUps.push(run));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (packet.type === "watch") throw new SystemError(error.code, "write", "/dev/xen/xenbus");
      // The kernel does not look at whether an unwatch was refused.
      if (packet.type === "unwatch") this.#reply({ ...packet, payload: messages.unwatch.reply.encode(null) });
      else this.#reply({ ...packet, type: "error", payload: messages.error.reply.encode(error.code) });
      return;
    }
    this.#reply({ ...packet, payload });
    for (const run of followUps) run();
  }

  close(): void {
    this.daemon.drop(this);
    this.transactions.clear();
    this.#client.close();
    this.#server.close();
  }

  get closed(): boolean {
    return this.#client.closed;
  }

  resolve(path: string): string {
    return path.startsWith("/") || path.startsWith("@") ? path : `/local/domain/${this.domid}/${path}`;
  }

  relative(path: string): string {
    const base = `/local/domain/${this.domid}/`;
    return path.startsWith(base) ? path.slice(base.length) : path;
  }

  event(path: string, token: string): void {
    const payload = messages.watchEvent.reply.encode({ path, token });
    this.#send({ type: "watchEvent", requestId: 0xdeadbeef, transactionId: 0xffff8881, payload });
  }

  /** Keeps every packet back until {@link release}: a xenstored that is stuck. */
  hold(): void {
    this.#held ??= [];
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const packet of held) this.#send(packet);
  }

  /** Ends the stream after so many more bytes. */
  cutAfter(bytes: number): void {
    this.#cutAfter = bytes;
    if (bytes === 0) this.#server.close();
  }

  /** Sends bytes as they are, whatever they are. */
  inject(bytes: Uint8Array): void {
    const part = bytes.subarray(0, this.#cutAfter);
    this.#cutAfter -= part.length;
    const cut = this.#cutAfter === 0;
    this.#server
      .write(part)
      .then(() => cut && this.#server.close())
      .catch(() => {});
  }

  #reply(packet: Packet): void {
    if (!this.daemon.options.reorder) {
      this.#send(packet);
      return;
    }
    this.#waiting.push(packet);
    if (this.#waiting.length > 1) return;
    setImmediate(() => {
      const batch = this.#waiting;
      this.#waiting = [];
      while (batch.length > 0) {
        const [next] = batch.splice(this.#random.between(0, batch.length - 1), 1);
        if (next !== undefined) this.#send(next);
      }
    });
  }

  #send(packet: Packet): void {
    if (this.#held !== undefined) this.#held.push(packet);
    else if (!this.#server.closed) this.inject(encodePacket(packet));
  }
}

function parentOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/"))) || "/";
}

/** As xenstored cuts a long list: whole names, as many as fit, an empty name after the last. */
function directoryPart(names: readonly string[], offset: number, generation: number): Uint8Array {
  const count = String(generation);
  const room = payloadLimit - count.length - 2;
  const part: string[] = [];
  let size = 0;
  let at = 0;
  let last = true;
  for (const name of names) {
    if (at >= offset) {
      if (size + name.length + 1 > room) {
        last = false;
        break;
      }
      part.push(name);
      size += name.length + 1;
    }
    at += name.length + 1;
  }
  return messages.directoryPart.reply.encode({ generation: count, names: part, size, last });
}

function operandOf(packet: Packet): string {
  const end = packet.payload.indexOf(0);
  return decodeText(packet.payload.subarray(0, end < 0 ? packet.payload.length : end));
}
