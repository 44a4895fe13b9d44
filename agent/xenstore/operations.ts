import { decodeText, encodeText } from "../bytes/text.ts";
import type { Answered, Connection } from "./connection.ts";
import { ProtocolError, XenstoreError } from "./errors.ts";
import { type MessageName, messages, type Permission, type ReplyBody, type RequestBody } from "./wire.ts";

/** Longest list of children that is put together from parts, in bytes. */
const directoryLimit = 1024 * 1024;
/** How often a list is begun anew because the directory changed between two of its parts. */
const directoryAttempts = 16;

/**
 * What can be asked of the store, within a transaction or without: {@link XenstoreClient} and the `tx` of
 * its `transaction` are both of this kind.
 *
 * Paths without a leading `/` are relative to this domain's own `/local/domain/<domid>`. Requests that
 * do not depend on each other should be started together and awaited together: the next is then sent in the
 * same turn of the event loop in which the reply to the one before arrives. All throw {@link XenstoreFailure}.
 */
export class Operations {
  constructor(
    protected readonly connection: Connection,
    protected readonly transactionId: number,
  ) {}

  read(path: string): Promise<Uint8Array> {
    return this.request("read", path, path);
  }

  /** The values of many nodes, in the same order, or the first failure: for one promise in place of many. */
  readAll(paths: readonly string[]): Promise<Uint8Array[]> {
    return new Promise((resolve, reject) => {
      const values: Uint8Array[] = new Array(paths.length);
      let missing = paths.length;
      if (missing === 0) resolve(values);
      paths.forEach((path, n) => {
        const answer = (value: Uint8Array) => {
          values[n] = value;
          if (--missing === 0) resolve(values);
        };
        this.send("read", path, path, { answer, reject });
      });
    });
  }

  /** The value as UTF-8, bytes that are not become U+FFFD. */
  readText(path: string): Promise<string> {
    return this.read(path).then(decodeText);
  }

  /** `undefined` when the node does not exist. */
  tryRead(path: string): Promise<Uint8Array | undefined> {
    return this.read(path).catch(unlessAbsent);
  }

  tryReadText(path: string): Promise<string | undefined> {
    return this.read(path).then(decodeText, unlessAbsent);
  }

  /** Creates missing parents, with empty values. */
  async write(path: string, value: string | Uint8Array): Promise<void> {
    const bytes = typeof value === "string" ? encodeText(value) : value;
    await this.request("write", { path, value: bytes }, path);
  }

  /** With everything below it; a node that is not there is no error, unless its parent is missing too. */
  async remove(path: string): Promise<void> {
    await this.request("remove", path, path);
  }

  /** Leaves a node that exists as it is. */
  async mkdir(path: string): Promise<void> {
    await this.request("mkdir", path, path);
  }

  /** Names of the children, in xenstored's order. */
  async directory(path: string): Promise<readonly string[]> {
    try {
      return await this.request("directory", path, path);
    } catch (error) {
      if (error instanceof XenstoreError && error.code === "E2BIG") return this.#directoryInParts(path);
      throw error;
    }
  }

  /** No names when the node does not exist. */
  async tryDirectory(path: string): Promise<readonly string[]> {
    return (await this.directory(path).catch(unlessAbsent)) ?? [];
  }

  /** The first is the owner's, whose access is everybody else's default. */
  permissions(path: string): Promise<readonly Permission[]> {
    return this.request("getPermissions", path, path);
  }

  async setPermissions(path: string, permissions: readonly Permission[]): Promise<void> {
    await this.request("setPermissions", { path, permissions }, path);
  }

  protected request<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
  ): Promise<ReplyBody<N>> {
    return new Promise((resolve, reject) => {
      const answer = (reply: Uint8Array) => resolve(messages[type].reply.decode(reply) as ReplyBody<N>);
      this.send(type, body, operand, { answer, reject });
    });
  }

  /** On its way to the store, or throws. */
  protected send<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
    answered: Answered,
  ): void {
    this.connection.request(type, body, operand, answered, { transactionId: this.transactionId });
  }

  /**
   * A list of more than 4096 bytes comes in parts, by byte offset. Parts of different generation counts do
   * not belong together: the list is then begun anew.
   */
  async #directoryInParts(path: string): Promise<readonly string[]> {
    for (let attempt = 0; attempt < directoryAttempts; attempt++) {
      const names: string[] = [];
      let generation: string | undefined;
      let offset = 0;
      for (;;) {
        const part = await this.#directoryPart(path, offset);
        generation ??= part.generation;
        if (part.generation !== generation) break;
        names.push(...part.names);
        offset += part.size;
        if (part.last) return names;
        if (part.size === 0) throw new ProtocolError(`directory ${path}: a part with nothing in it`);
        if (offset > directoryLimit) throw new XenstoreError("E2BIG", "directory", path);
      }
    }
    throw new XenstoreError("EAGAIN", "directory", path);
  }

  async #directoryPart(path: string, offset: number): Promise<ReplyBody<"directoryPart">> {
    try {
      return await this.request("directoryPart", { path, offset }, path);
    } catch (error) {
      // An old xenstored: what stands is that the list is too long for it.
      if (error instanceof XenstoreError && error.code === "ENOSYS") {
        throw new XenstoreError("E2BIG", "directory", path);
      }
      throw error;
    }
  }
}

/** `undefined` for a node that does not exist; throws every other error again. */
function unlessAbsent(error: unknown): undefined {
  if (error instanceof XenstoreError && error.code === "ENOENT") return undefined;
  throw error;
}
