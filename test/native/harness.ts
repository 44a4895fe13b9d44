/** What the suite's tests are written with. Runs in QuickJS. */
import * as native from "stubdom-native";
import { detach } from "test-native";

export type Test = () => void | Promise<void>;
/** Tests by what they show; the key of a {@link Group} is the native function that they are about. */
export type Group = Readonly<Record<string, Test>>;

export const errno = {
  EPERM: -1,
  ENOENT: -2,
  EBADF: -9,
  EAGAIN: -11,
  EACCES: -13,
  EEXIST: -17,
  ENOTDIR: -20,
  EISDIR: -21,
  EINVAL: -22,
  ENOTTY: -25,
  ESPIPE: -29,
  EPIPE: -32,
  ENAMETOOLONG: -36,
  ENOTEMPTY: -39,
} as const;

/** No descriptor of a test's process comes near. */
export const CLOSED = 4000;

function show(value: unknown): string {
  if (value instanceof Uint8Array) return `bytes ${[...value].join(" ")}`;
  if (typeof value === "bigint" || typeof value === "symbol" || typeof value === "function")
    return String(value);
  return JSON.stringify(value) ?? String(value);
}

export function equal(actual: unknown, expected: unknown): void {
  if (show(actual) !== show(expected)) throw new Error(`got ${show(actual)}, expected ${show(expected)}`);
}

export function holds(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(`does not hold: ${what}`);
}

/** `call` throws an error of the given kind, a TypeError unless told. */
export function throws(call: () => unknown, kind: new (...args: never[]) => Error = TypeError): void {
  let result: unknown;
  try {
    result = call();
  } catch (error) {
    if (error instanceof kind) return;
    throw new Error(`threw ${String(error)}, expected a ${kind.name}`);
  }
  throw new Error(`returned ${show(result)}, expected a ${kind.name}`);
}

/** The result, which must be no -errno. */
export function done(result: number): number {
  holds(result >= 0, `${native.errorName(-result) ?? result} is no error`);
  return result;
}

/** The list that a native function gave instead of -errno. */
export function list<T extends readonly unknown[]>(result: T | number): T {
  if (typeof result === "number") throw new Error(`got ${native.errorName(-result) ?? result}`);
  return result;
}

export function text(bytes: string): Uint8Array {
  return Uint8Array.from(bytes, (character) => character.charCodeAt(0));
}

/** A path that no other test uses; what lies there when the process ends goes with its tmpfs. */
let paths = 0;
export function freshPath(): string {
  return `/tmp/${native.pid()}-${paths++}`;
}

/** A new file with `contents`, open for reading and writing. */
export function freshFile(contents = "", path = freshPath()): number {
  const fd = done(native.open(path, 0o2 | 0o100, 0o600));
  equal(native.write(fd, text(contents)), contents.length);
  equal(native.seek(fd, 0), 0);
  return fd;
}

export function close(...fds: readonly number[]): void {
  for (const fd of fds) equal(native.close(fd), 0);
}

export function ready(fd: number, direction: 1 | 2 = 1): Promise<void> {
  return new Promise((resolve) => {
    done(
      native.watch(fd, direction, () => {
        native.watch(fd, direction, null);
        resolve();
      }),
    );
  });
}

/** One timer at a time is all that these tests need. */
export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    native.onTimer(resolve);
    native.armTimer(native.now() + milliseconds);
  });
}

/** How an argument is converted, and so what a wrong one is. */
type Kind = "descriptor" | "integer" | "path" | "text" | "bytes";
type AnyFunction = (...args: unknown[]) => unknown;

const harmless: Record<Kind, () => unknown> = {
  descriptor: () => CLOSED,
  integer: () => 0,
  path: () => "/nowhere/at/all",
  text: () => "x",
  bytes: () => new Uint8Array(8),
};

function detached(): Uint8Array {
  const bytes = new Uint8Array(64).subarray(8);
  detach(bytes.buffer as ArrayBuffer);
  return bytes;
}

/**
 * Tests that every function with arguments of these kinds must pass: what cannot be converted throws and
 * does nothing, what the caller's conversion throws passes through, what is closed or too long is -errno.
 */
export function refusals(name: string, call: unknown, ...kinds: readonly Kind[]): Group {
  const apply = call as AnyFunction;
  const group: Record<string, Test> = {};
  const withArgument = (position: number, value: unknown) => () =>
    apply(...kinds.map((kind, n) => (n === position ? value : harmless[kind]())));
  for (const [position, kind] of kinds.entries()) {
    const label = `${name}: argument ${position + 1}`;
    if (kind === "bytes") {
      group[`${label} must be a typed array`] = () => {
        for (const wrong of [undefined, null, 5, "text", {}, [1, 2], { length: 5 }, new ArrayBuffer(8)])
          throws(withArgument(position, wrong));
        throws(withArgument(position, new DataView(new ArrayBuffer(8))));
      };
      group[`${label} must not be detached`] = () => throws(withArgument(position, detached()));
      continue;
    }
    group[`${label} must convert`] = () => {
      throws(withArgument(position, Symbol("symbol")));
      if (kind === "integer" || kind === "descriptor") throws(withArgument(position, 5n));
    };
    group[`${label} may throw while it converts`] = () => {
      const trap = () => {
        throw new RangeError("trap");
      };
      throws(withArgument(position, { valueOf: trap, toString: trap }), RangeError);
    };
    if (kind === "path")
      group[`${label} may be any length`] = () => {
        // Of two paths the kernel may find first that the other leads nowhere.
        for (const path of [`/${"x".repeat(4096)}`, `/${"x/".repeat(200_000)}`]) {
          const result = withArgument(position, path)();
          if (result !== errno.ENOENT || kinds.length === 1) equal(result, errno.ENAMETOOLONG);
        }
      };
    if (kind === "descriptor")
      group[`${label} may be closed, negative or huge`] = () => {
        for (const wrong of [CLOSED, -1, -(2 ** 31), 2 ** 31 - 1])
          equal(withArgument(position, wrong)(), errno.EBADF);
      };
  }
  return group;
}
