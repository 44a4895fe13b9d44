import { decodeText, encodeText } from "../../agent/bytes/text.ts";
import {
  type Clock,
  type Descriptors,
  type FileStatus,
  type FileSystem,
  type Framebuffers,
  type Platform,
  type Processes,
  type Sockets,
  type Storage,
  SystemError,
  type Vchans,
} from "../../agent/platform/port.ts";
import { FakeClock } from "./clock.ts";

/** Pieces that a test gives; any other piece fails by its name when it is used. */
export interface FakePieces {
  readonly clock?: Clock;
  readonly descriptors?: Partial<Descriptors>;
  readonly files?: FileSystem;
  readonly processes?: Partial<Processes>;
  readonly sockets?: Partial<Sockets>;
  readonly vchans?: Partial<Vchans>;
  readonly framebuffers?: Partial<Framebuffers>;
  readonly storage?: Partial<Storage>;
}

export function fakePlatform(pieces: FakePieces = {}): Platform {
  return {
    clock: pieces.clock ?? new FakeClock(),
    descriptors: partial<Descriptors>("descriptors", pieces.descriptors),
    files: pieces.files ?? new FakeFiles(),
    processes: partial<Processes>("processes", pieces.processes),
    sockets: partial<Sockets>("sockets", pieces.sockets),
    vchans: partial<Vchans>("vchans", pieces.vchans),
    framebuffers: partial<Framebuffers>("framebuffers", pieces.framebuffers),
    storage: partial<Storage>("storage", pieces.storage),
  };
}

function partial<T extends object>(name: string, given: Partial<T> = {}): T {
  return new Proxy(given, {
    get(target, property, receiver) {
      if (property in target) return Reflect.get(target, property, receiver);
      throw new Error(`this test gave no ${name}.${String(property)}`);
    },
  }) as T;
}

/**
 * Files in memory, by absolute path; a directory exists when something lies in it or it was made. `kind` of
 * all of them is "file" or "directory": tests of device nodes need no more.
 */
export class FakeFiles implements FileSystem {
  readonly #files = new Map<string, Uint8Array>();
  readonly #directories = new Set<string>(["/"]);
  readonly #links = new Map<string, string>();
  /** Mounts in the order they were asked for. */
  readonly mounts: string[] = [];

  constructor(contents: Readonly<Record<string, string>> = {}) {
    for (const [path, text] of Object.entries(contents)) this.put(path, text);
  }

  /** Creates a file with all of its directories. */
  put(path: string, contents: string | Uint8Array): void {
    this.#files.set(path, typeof contents === "string" ? encodeText(contents) : contents);
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      this.#directories.add(path.slice(0, at));
    }
  }

  text(path: string): string {
    return decodeText(this.readFile(path, Number.MAX_SAFE_INTEGER));
  }

  readFile(path: string, limit: number): Uint8Array {
    const contents = this.#files.get(path);
    if (contents === undefined) {
      throw new SystemError(this.#directories.has(path) ? "EISDIR" : "ENOENT", "open", path);
    }
    if (contents.length > limit) throw new SystemError("EFBIG", "read", path);
    return contents.slice();
  }

  writeFile(path: string, contents: string | Uint8Array): void {
    this.#requireParent("open", path);
    this.#files.set(path, typeof contents === "string" ? encodeText(contents) : contents.slice());
  }

  exists(path: string): boolean {
    return this.#files.has(path) || this.#directories.has(path) || this.#links.has(path);
  }

  status(path: string, links?: "follow"): FileStatus {
    const target = this.#links.get(path);
    if (target !== undefined)
      return links === "follow"
        ? this.status(target, links)
        : { kind: "symlink", size: target.length, mode: 0o777 };
    const contents = this.#files.get(path);
    if (contents !== undefined) return { kind: "file", size: contents.length, mode: 0o600 };
    if (this.#directories.has(path)) return { kind: "directory", size: 0, mode: 0o700 };
    throw new SystemError("ENOENT", "stat", path);
  }

  readDirectory(path: string): string[] {
    if (!this.#directories.has(path)) throw new SystemError("ENOENT", "opendir", path);
    const prefix = path === "/" ? "/" : `${path}/`;
    const names = new Set<string>();
    for (const entry of [...this.#files.keys(), ...this.#directories, ...this.#links.keys()]) {
      if (!entry.startsWith(prefix) || entry === path) continue;
      const name = entry.slice(prefix.length).split("/")[0];
      if (name) names.add(name);
    }
    return [...names].sort();
  }

  makeDirectory(path: string): void {
    if (this.exists(path)) throw new SystemError("EEXIST", "mkdir", path);
    this.#requireParent("mkdir", path);
    this.#directories.add(path);
  }

  makeFifo(path: string): void {
    if (this.exists(path)) throw new SystemError("EEXIST", "mkfifo", path);
    this.#requireParent("mkfifo", path);
    this.#files.set(path, new Uint8Array());
  }

  remove(path: string): void {
    if (this.#files.delete(path) || this.#links.delete(path)) return;
    if (!this.#directories.has(path)) throw new SystemError("ENOENT", "remove", path);
    if (this.readDirectory(path).length > 0) throw new SystemError("ENOTEMPTY", "remove", path);
    this.#directories.delete(path);
  }

  rename(from: string, to: string): void {
    const contents = this.readFile(from, Number.MAX_SAFE_INTEGER);
    this.#requireParent("rename", to);
    this.#files.delete(from);
    this.#files.set(to, contents);
  }

  readLink(path: string): string {
    const target = this.#links.get(path);
    if (target === undefined)
      throw new SystemError(this.exists(path) ? "EINVAL" : "ENOENT", "readlink", path);
    return target;
  }

  symlink(target: string, path: string): void {
    if (this.exists(path)) throw new SystemError("EEXIST", "symlink", path);
    this.#requireParent("symlink", path);
    this.#links.set(path, target);
  }

  mount(source: string, target: string, type: string, flags: readonly string[], data: string): void {
    if (!this.#directories.has(target)) throw new SystemError("ENOENT", "mount", target);
    this.mounts.push([source, target, type, flags.join(","), data].join(" "));
  }

  #requireParent(call: string, path: string): void {
    const parent = path.slice(0, path.lastIndexOf("/")) || "/";
    if (!this.#directories.has(parent)) throw new SystemError("ENOENT", call, path);
  }
}
