import * as native from "stubdom-native";
import {
  CLOSED,
  close,
  done,
  equal,
  errno,
  freshFile,
  type Group,
  holds,
  list,
  ready,
  refusals,
  sleep,
  text,
  throws,
} from "../harness.ts";

const READ_AT = 0;
const WRITE_AT = 1;
const SYNC = 2;
const DRAIN = 3;

/** Waits until `count` jobs are done; their results by their ids. */
async function results(count: number): Promise<Map<number, number>> {
  const all = new Map<number, number>();
  const fd = done(native.jobsReady());
  while (all.size < count) {
    await ready(fd);
    const flat = native.results();
    for (let at = 0; at < flat.length; at += 2) all.set(flat[at] ?? -1, flat[at + 1] ?? -1);
  }
  return all;
}

async function job(
  operation: 0 | 1 | 2 | 3,
  fd: number,
  bytes: Uint8Array | null,
  offset = 0,
): Promise<number> {
  const id = done(native.submit(operation, fd, bytes, offset));
  return (await results(1)).get(id) ?? Number.NaN;
}

const hash = (string: string, seed = 0n) => native.hash(text(string), seed);

export const storageTests: Record<string, Group> = {
  hash: {
    ...refusals("hash", (bytes: Uint8Array) => native.hash(bytes, 0n), "bytes"),
    "is XXH64": () => {
      // The specification's own sanity values.
      equal(hash(""), 0xef46db3751d8e999n);
      equal(hash("a"), 0xd24ec4f1a98c6e5bn);
      equal(hash("abc"), 0x44bc2cf5ad770999n);
      equal(hash("Nobody inspects the spammish repetition"), 0xfbcea83c8a378bf1n);
      equal(hash("a", 1n) === hash("a"), false);
    },
    "every length at every offset": () => {
      const bytes = Uint8Array.from({ length: 140 }, (_, n) => n);
      for (let offset = 0; offset < 9; offset++)
        for (let length = 0; length + offset <= 130; length++)
          equal(
            native.hash(bytes.subarray(offset, offset + length), 7n),
            native.hash(bytes.slice(offset, offset + length), 7n),
          );
    },
    "needs a big integer as its seed": () => {
      for (const wrong of [5, null, undefined, Symbol("x")])
        throws(() => native.hash(new Uint8Array(4), wrong as unknown as bigint));
      native.hash(new Uint8Array(4), -1n);
      native.hash(new Uint8Array(4), 1n << 200n);
    },
  },
  alignedBuffer: {
    ...refusals("alignedBuffer", native.alignedBuffer, "integer"),
    "of a size that there is": () => {
      for (const size of [1, 4096, 4097, 1 << 20]) {
        const bytes = new Uint8Array(native.alignedBuffer(size));
        equal(bytes.length, size);
        equal(
          bytes.every((byte) => byte === 0),
          true,
        );
        bytes.fill(1);
      }
      for (const wrong of [0, -1, (16 << 20) + 1, 2 ** 53, Number.NaN])
        throws(() => native.alignedBuffer(wrong), RangeError);
    },
  },
  jobsReady: { "the same descriptor each time": () => equal(native.jobsReady(), native.jobsReady()) },
  submit: {
    "an operation that there is not": () => {
      for (const wrong of [-1, 4, 1000]) equal(native.submit(wrong as 0, 0, null, 0), errno.EINVAL);
    },
    "arguments that do not convert": () => {
      const symbol = Symbol("x") as unknown as number;
      throws(() => native.submit(symbol as 0, 0, null, 0));
      throws(() => native.submit(READ_AT, symbol, new Uint8Array(1), 0));
      throws(() => native.submit(READ_AT, 0, null, 0));
      throws(() => native.submit(WRITE_AT, 0, {} as Uint8Array, 0));
      throws(() => native.submit(READ_AT, 0, new Uint8Array(1), symbol));
    },
    "writes and reads where it is told": async () => {
      const fd = freshFile("..........");
      equal(await job(WRITE_AT, fd, text("abcdef").subarray(2, 5), 4), 3);
      const bytes = new Uint8Array(6).fill(0x2d);
      equal(await job(READ_AT, fd, bytes.subarray(1, 5), 3), 4);
      equal(native.decodeText(bytes), "-.cde-");
      equal(await job(READ_AT, fd, bytes, 8), 2);
      equal(await job(READ_AT, fd, bytes, 100), 0);
      equal(await job(READ_AT, fd, new Uint8Array(0), 0), 0);
      equal(await job(WRITE_AT, fd, text("x"), -1), errno.EINVAL);
      equal(await job(SYNC, fd, null), 0);
      close(fd);
    },
    "a job that is done before anybody asked where results are told": async () => {
      const fd = freshFile();
      const id = done(native.submit(WRITE_AT, fd, text("x"), 0));
      await sleep(200);
      equal((await results(1)).get(id), 1);
      close(fd);
    },
    "reports what fails": async () => {
      equal(await job(READ_AT, CLOSED, new Uint8Array(4)), errno.EBADF);
      equal(await job(WRITE_AT, -1, new Uint8Array(4)), errno.EBADF);
      equal(await job(SYNC, CLOSED, null), errno.EBADF);
      equal(await job(DRAIN, CLOSED, null), errno.EBADF);
      const fd = freshFile();
      equal(await job(DRAIN, fd, null), errno.ENOTTY);
      close(fd);
    },
    "many at once, their buffers forgotten by the caller": async () => {
      const fd = freshFile();
      for (let n = 0; n < 200; n++) done(native.submit(WRITE_AT, fd, new Uint8Array(1000).fill(n), n * 1000));
      const all = await results(200);
      equal(
        [...all.values()].every((count) => count === 1000),
        true,
      );
      const bytes = new Uint8Array(200_000);
      equal(await job(READ_AT, fd, bytes), bytes.length);
      equal(
        bytes.every((byte, at) => byte === Math.floor(at / 1000)),
        true,
      );
      close(fd);
    },
  },
  results: { none: () => equal(native.results(), []) },
  loopAttach: {
    "what cannot be attached": () => {
      throws(() => native.loopAttach(Symbol("x") as unknown as number, false));
      for (const fd of [CLOSED, -1]) holds((native.loopAttach(fd, true) as number) < 0, "refused");
    },
  },
  loopResize: {
    ...refusals("loopResize", native.loopResize, "descriptor"),
    "a file": () => {
      const fd = freshFile();
      equal(native.loopResize(fd), errno.ENOTTY);
      close(fd);
    },
  },
  deviceNumber: {
    ...refusals("deviceNumber", native.deviceNumber, "descriptor"),
    "is for block devices": () => {
      const fd = freshFile();
      equal(native.deviceNumber(fd), -15);
      close(fd);
    },
  },
  truncate: {
    ...refusals("truncate", native.truncate, "descriptor", "integer"),
    "to any size": () => {
      const fd = freshFile("abc");
      equal(native.truncate(fd, 1 << 20), 0);
      equal(native.size(fd), 1 << 20);
      equal(native.truncate(fd, -1), errno.EINVAL);
      close(fd);
    },
  },
  tryLock: {
    ...refusals("tryLock", native.tryLock, "descriptor"),
    "only one": () => {
      const path = `/tmp/lock-${native.pid()}`;
      const [a, b] = [freshFile("", path), freshFile("", path)];
      equal([native.tryLock(a), native.tryLock(a), native.tryLock(b)], [0, 0, errno.EAGAIN]);
      close(a);
      equal(native.tryLock(b), 0);
      close(b);
    },
  },
  freeSpace: {
    ...refusals("freeSpace", native.freeSpace, "path"),
    "of a directory": () => {
      holds(native.freeSpace("/tmp") > 0, "some");
      equal(native.freeSpace("/nowhere"), errno.ENOENT);
    },
  },
  pipeSize: {
    ...refusals("pipeSize", native.pipeSize, "descriptor", "integer"),
    "of a pipe": () => {
      const [a, b] = list(native.pipe());
      equal(native.pipeSize(a, 100_000), 131072);
      equal(native.pipeSize(a, -1), errno.EINVAL);
      close(a, b);
      const fd = freshFile();
      equal(native.pipeSize(fd, 4096), errno.EBADF);
      close(fd);
    },
  },
};
