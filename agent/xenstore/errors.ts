/**
 * What can go wrong between the agent and xenstored, one tree:
 *
 *     XenstoreFailure
 *     ├── XenstoreError      xenstored (or the kernel for it) refused a request: ENOENT, EACCES, EAGAIN...
 *     ├── ProtocolError      bytes that the protocol forbids, in either direction
 *     ├── RequestTimedOut    no reply in time; the connection is given up with it
 *     ├── WaitTimedOut       a node did not take the value that was waited for
 *     └── ConnectionLost     the connection is gone, and every request and watch on it with it
 *
 * Every message names the path, what happened and what to do about it.
 */
export abstract class XenstoreFailure extends Error {}

/** Errors that xenstored sends, by name (xs_wire.h, `xsd_errors`), and EQUOTA, oxenstored's own. */
const meanings: Readonly<Record<string, readonly [meaning: string, remedy: string]>> = {
  E2BIG: ["too large for one message", "shorten the value, or list the directory in parts"],
  EACCES: ["not permitted for this domain", "check the node's permissions with `xenstore-ls -p` in dom0"],
  EAGAIN: ["changed by somebody else meanwhile", "find out who keeps writing it, with `xenstore-watch`"],
  EBUSY: ["xenstored is busy", "try again"],
  EEXIST: ["exists already", "remove it first"],
  EINVAL: ["xenstored took it for malformed", "check the characters and the length of the path"],
  EIO: ["xenstored could not read or write its store", "look into xenstored's log in dom0"],
  EISCONN: ["connected already", "release the domain first"],
  EISDIR: ["has children", "name a leaf"],
  ENOENT: ["does not exist", "check that the toolstack wrote it (`xenstore-ls` in dom0)"],
  ENOMEM: ["out of memory", "give dom0 or the stub domain more memory"],
  ENOSPC: ["over this domain's quota", "raise xenstored's quota, or write fewer or shorter nodes"],
  ENOSYS: ["not supported by this xenstored", "update xenstored"],
  ENOTEMPTY: ["has children", "remove them first"],
  EPERM: ["reserved to dom0", "do it from dom0"],
  EQUOTA: ["over this domain's quota", "raise xenstored's quota, or write fewer or shorter nodes"],
  EROFS: ["the store is read-only", "look into xenstored's log in dom0"],
};

/** A request that was refused. `code` is the name as it came, `ENOENT` and the like. */
export class XenstoreError extends XenstoreFailure {
  override readonly name = "XenstoreError";
  constructor(
    readonly code: string,
    /** What was asked: `read`, `write`, `watch`... */
    readonly operation: string,
    /** The path, or another operand where the request has none. */
    readonly path: string,
  ) {
    const [meaning, remedy] = meanings[code] ?? ["refused", "look into xenstored's log in dom0"];
    super(`xenstore ${operation} ${path}: ${code}, ${meaning}; ${remedy}`);
  }
}

/**
 * Whether a node is not there as far as a guest is told: where those above it are dom0's alone, xenstored answers
 * EACCES for one that does not exist, so that a guest learns nothing of what others have.
 */
export function isOutOfSight(error: unknown): boolean {
  return error instanceof XenstoreError && (error.code === "ENOENT" || error.code === "EACCES");
}

/** A packet or payload outside of the protocol; after one from xenstored the connection is given up. */
export class ProtocolError extends XenstoreFailure {
  override readonly name = "ProtocolError";
  constructor(detail: string) {
    super(`xenstore protocol: ${detail}`);
  }
}

export class RequestTimedOut extends XenstoreFailure {
  override readonly name = "RequestTimedOut";
  constructor(
    readonly operation: string,
    readonly path: string,
    readonly milliseconds: number,
  ) {
    super(
      `xenstore ${operation} ${path}: no reply in ${milliseconds} ms; check that xenstored runs in dom0 and is not stuck`,
    );
  }
}

export class WaitTimedOut extends XenstoreFailure {
  override readonly name = "WaitTimedOut";
  constructor(
    readonly path: string,
    /** What the node last held; `undefined` when it did not exist. */
    readonly last: string | undefined,
    readonly milliseconds: number,
  ) {
    const held = last === undefined ? "does not exist" : `is still "${last.slice(0, 80)}"`;
    super(`xenstore ${path}: ${held} after ${milliseconds} ms; look at who should write it`);
  }
}

export class ConnectionLost extends XenstoreFailure {
  override readonly name = "ConnectionLost";
  constructor(
    readonly reason: string,
    /** The request that was under way, `read /a/b`; `undefined` when told to a watch. */
    readonly request?: string,
  ) {
    super(
      `xenstore ${request ?? "connection"}: connection lost, ${reason}; nothing goes on without xenstore, look into xenstored's log in dom0`,
    );
  }
}
