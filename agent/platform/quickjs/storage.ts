import * as native from "stubdom-native";
import type { Descriptors, OpenOptions, Storage } from "../port.ts";
import { checked, fail, resultOf } from "./result.ts";

// Numbers of the x86-64 Linux ABI.
const noFollow = 0o400000;
const temporary = 0o20200000;
const readWrite = 0o2;
const operation = { readAt: 0, writeAt: 1, sync: 2, drain: 3 } as const;

const count = (result: number): number => result;
const nothing = (): void => {};

/** `openFlags` translates the port's options; opening is otherwise the same call. */
export function createStorage(
  descriptors: Descriptors,
  openFlags: (options: OpenOptions) => number,
): Storage {
  const waiting = new Map<number, (result: number) => void>();
  let ready = -1;

  const collect = () => {
    const results = native.results();
    for (let i = 0; i + 1 < results.length; i += 2) {
      const id = results[i] ?? -1;
      const settle = waiting.get(id);
      waiting.delete(id);
      settle?.(results[i + 1] ?? -1);
    }
    // Watched only while something is under way: the command line ends when nothing is left to wait for.
    if (waiting.size === 0) descriptors.onReadable(ready, null);
  };

  /** One promise a job: while a state is saved, what each costs is of the order of what its write does. */
  const submit = <T>(
    call: keyof typeof operation,
    fd: number,
    bytes: Uint8Array | null,
    offset: number,
    outcome: (result: number) => T,
  ) =>
    new Promise<T>((resolve, reject) => {
      if (ready < 0) ready = checked(native.jobsReady(), "eventfd", "storage");
      const id = checked(native.submit(operation[call], fd, bytes, offset), call, fd);
      if (waiting.size === 0) descriptors.onReadable(ready, collect);
      waiting.set(id, (result) => {
        try {
          resolve(outcome(checked(result, call, fd)));
        } catch (error) {
          reject(error);
        }
      });
    });

  return {
    hash: native.hash,
    buffer: (size) => new Uint8Array(native.alignedBuffer(size)),
    readAt: (fd, into, offset) => submit("readAt", fd, into, offset, count),
    writeAt: (fd, from, offset) => submit("writeAt", fd, from, offset, nothing),
    sync: (fd) => submit("sync", fd, null, 0, nothing),
    drain: (fd) => submit("drain", fd, null, 0, nothing),
    openNoFollow: (path, options) =>
      checked(native.open(path, openFlags(options) | noFollow, options.mode ?? 0o600), "open", path),
    openTemporary: (directory) =>
      checked(native.open(directory, temporary | readWrite, 0o600), "open temporary file in", directory),
    truncate: (fd, size) => void checked(native.truncate(fd, size), "ftruncate", fd),
    freeSpace: (path) => checked(native.freeSpace(path), "statvfs", path),
    tryLock(fd) {
      const result = native.tryLock(fd);
      if (result === wouldBlock) return false;
      if (result < 0) fail(result, "flock", fd);
      return true;
    },
    attachLoop(fd, readOnly) {
      const [loop, major, minor] = resultOf(native.loopAttach(fd, readOnly), "loop device for", fd);
      return { fd: loop, major, minor };
    },
    resizeLoop: (loop) => void checked(native.loopResize(loop), "LOOP_SET_CAPACITY", loop),
    deviceNumber(fd) {
      const [major, minor] = resultOf(native.deviceNumber(fd), "block device", fd);
      return { major, minor };
    },
    setPipeSize: (fd, bytes) => void checked(native.pipeSize(fd, bytes), "F_SETPIPE_SZ", fd),
  };
}

const wouldBlock = -11;
