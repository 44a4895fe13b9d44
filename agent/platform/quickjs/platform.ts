import * as native from "stubdom-native";
import { decodeText, encodeText } from "../../bytes/text.ts";
import {
  type Descriptors,
  type FileKind,
  type FileSystem,
  type Framebuffers,
  type MountFlag,
  type OpenOptions,
  type PixelProgress,
  type Platform,
  type Processes,
  type SignalName,
  type Sockets,
  SystemError,
  type Vchans,
} from "../port.ts";
import { createClock } from "./clock.ts";
import { checked, resultOf } from "./result.ts";
import { createStorage } from "./storage.ts";

// Numbers of the x86-64 Linux ABI.
const openFlag = {
  write: 0o1,
  readWrite: 0o2,
  create: 0o100,
  exclusive: 0o200,
  truncate: 0o1000,
  append: 0o2000,
  nonBlocking: 0o4000,
  direct: 0o40000,
};
const mountFlag: Record<MountFlag, number> = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  remount: 32,
  move: 8192,
};
const signalNumber = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGKILL: 9,
  SIGUSR1: 10,
  SIGUSR2: 12,
  SIGTERM: 15,
  SIGCHLD: 17,
  SIGCONT: 18,
  SIGSTOP: 19,
  SIGPWR: 30,
};
/** S_IFMT of st_mode (inode(7)). A map: the formatter has rewritten octal property names, and wrongly. */
const fileKind: ReadonlyMap<number, FileKind> = new Map([
  [0o010000, "fifo"],
  [0o020000, "character"],
  [0o040000, "directory"],
  [0o060000, "block"],
  [0o100000, "file"],
  [0o120000, "symlink"],
  [0o140000, "socket"],
]);
const wouldBlock = -11;
/** struct signalfd_siginfo (signalfd(2)); its first 32-bit word is the signal's number. */
const signalRecordSize = 128;

function orWouldBlock(result: number, call: string, operand: number): number | null {
  return result >= 0 ? result : result === wouldBlock ? null : checked(result, call, operand);
}

function openFlags(options: OpenOptions): number {
  return (
    { read: 0, write: openFlag.write, "read-write": openFlag.readWrite }[options.access] |
    (options.create ? openFlag.create : 0) |
    (options.exclusive ? openFlag.exclusive : 0) |
    (options.truncate ? openFlag.truncate : 0) |
    (options.append ? openFlag.append : 0) |
    (options.nonBlocking ? openFlag.nonBlocking : 0) |
    (options.direct ? openFlag.direct : 0)
  );
}

const descriptors: Descriptors = {
  open: (path, options) =>
    checked(native.open(path, openFlags(options), options.mode ?? 0o600), "open", path),
  close: (fd) => void checked(native.close(fd), "close", fd),
  read: (fd, into) => orWouldBlock(native.read(fd, into), "read", fd),
  write: (fd, from) => orWouldBlock(native.write(fd, from), "write", fd),
  seek: (fd, offset) => void checked(native.seek(fd, offset), "seek", fd),
  dataSync: (fd) => void checked(native.dataSync(fd), "fdatasync", fd),
  size: (fd) => checked(native.size(fd), "size", fd),
  onReadable: (fd, ready) => void checked(native.watch(fd, 1, ready), "watch", fd),
  onWritable: (fd, ready) => void checked(native.watch(fd, 2, ready), "watch", fd),
};

const files: FileSystem = {
  readFile(path, limit) {
    const fd = descriptors.open(path, { access: "read" });
    try {
      // Files of /proc and /sys have size 0: read until the end, in one buffer that grows to the limit.
      let buffer = new Uint8Array(Math.min(limit + 1, 4096));
      let size = 0;
      for (;;) {
        const count = checked(native.read(fd, buffer.subarray(size)), "read", path);
        size += count;
        if (size > limit) throw new SystemError("EFBIG", "read", path);
        if (count === 0) return buffer.slice(0, size);
        if (size === buffer.length) {
          const larger = new Uint8Array(Math.min(limit + 1, 2 * size));
          larger.set(buffer);
          buffer = larger;
        }
      }
    } finally {
      native.close(fd);
    }
  },
  writeFile(path, contents) {
    const bytes = typeof contents === "string" ? encodeText(contents) : contents;
    const fd = descriptors.open(path, { access: "write", create: true, truncate: true });
    try {
      const count = checked(native.write(fd, bytes), "write", path);
      if (count !== bytes.length) throw new SystemError("EIO", "write", path);
    } finally {
      native.close(fd);
    }
  },
  exists: (path) => typeof native.status(path, false) !== "number",
  status(path, links) {
    const [mode, size] = resultOf(native.status(path, links === "follow"), "stat", path);
    return { kind: fileKind.get(mode & 0o170000) ?? "other", mode: mode & 0o7777, size };
  },
  readDirectory: (path) => resultOf(native.readDirectory(path), "readdir", path),
  makeDirectory: (path) => void checked(native.makeDirectory(path), "mkdir", path),
  makeFifo: (path) => void checked(native.makeFifo(path), "mkfifo", path),
  remove: (path) => void checked(native.remove(path), "remove", path),
  rename: (from, to) => void checked(native.rename(from, to), "rename", `${from} -> ${to}`),
  readLink: (path) => resultOf(native.readLink(path), "readlink", path),
  symlink: (target, path) => void checked(native.symlink(target, path), "symlink", path),
  mount(source, target, type, flags, data) {
    const bits = flags.reduce((sum, flag) => sum | mountFlag[flag], 0);
    checked(native.mount(source, target, type, bits, data), "mount", `${type} on ${target}`);
  },
};

const processes: Processes = {
  pid: native.pid(),
  spawn({ argv, env, descriptors: fds, newSession, controllingTerminal, confined }) {
    const flags = (newSession ? 1 : 0) | (controllingTerminal ? 2 : 0) | (confined ? 4 : 0);
    const numbers = fds.map((fd) => fd ?? -1);
    const program = argv[0] ?? "";
    const name = typeof program === "string" ? program : decodeText(program);
    return checked(native.spawn(argv, env, numbers, flags), "spawn", name);
  },
  executedAt: native.executedAt,
  kill: (pid, signal) => void checked(native.kill(pid, signalNumber[signal]), "kill", pid),
  yieldWakeUps: (pid) => void checked(native.yieldWakeUps(pid), "sched_setscheduler", pid),
  reap() {
    const ended = native.reap();
    if (ended === null) return null;
    const [pid, code, signal] = ended;
    return { pid, code: signal === null ? code : null, signal };
  },
  onSignals(names, deliver) {
    const byNumber = new Map<number, SignalName>(names.map((name) => [signalNumber[name], name]));
    const fd = checked(native.signals([...byNumber.keys()]), "signalfd", names.join(" "));
    const record = new Uint8Array(signalRecordSize);
    const number = new DataView(record.buffer);
    descriptors.onReadable(fd, () => {
      while (descriptors.read(fd, record) === signalRecordSize) {
        const name = byNumber.get(number.getUint32(0, true));
        if (name !== undefined) deliver(name);
      }
    });
  },
  powerOff: (how) => void checked(native.powerOff(how), "reboot", how),
  endWithin: (seconds) => void checked(native.endWithin(seconds), "thread", "the end"),
  crashAlong: (domid) => void checked(native.crashAlong(domid), "crash along", String(domid)),
  exit: native.exit,
};

const sockets: Sockets = {
  socketPair: () => resultOf(native.socketPair(), "socketpair", ""),
  listenUnix: (path) => checked(native.listenUnix(path), "listen", path),
  accept: (fd) => orWouldBlock(native.accept(fd), "accept", fd),
  connectUnix: (path) => checked(native.connectUnix(path), "connect", path),
  sendDescriptor: (socket, bytes, descriptor) =>
    orWouldBlock(native.sendDescriptor(socket, bytes, descriptor), "send descriptor", socket),
  pipe: () => resultOf(native.pipe(), "pipe", ""),
  netlinkRoute: () => checked(native.netlinkRoute(1), "socket", "NETLINK_ROUTE"),
  kernelEvents: () => checked(native.kernelEvents(), "socket", "NETLINK_KOBJECT_UEVENT"),
  openTap: (name, vnetHeader) => checked(native.openTap(name, vnetHeader), "tap", name),
  terminalRaw: (fd) => void checked(native.terminalRaw(fd), "tcsetattr", fd),
  openTerminalRaw: (path) => checked(native.openTerminalRaw(path), "open terminal", path),
};

const vchans: Vchans = {
  holdDevices: () => void checked(native.holdDevices(), "open", "/dev/xen/xenbus"),
  listen(domid, path) {
    const ring = resultOf(native.vchanListen(domid, path), "vchan", path);
    return {
      fd: native.vchanDescriptor(ring),
      acknowledge: () => void checked(native.vchanAcknowledge(ring), "vchan event", path),
      state() {
        const live = native.vchanState(ring);
        return live === 0 ? "closed" : live === 1 ? "connected" : "waiting";
      },
      // A ring whose client left reads as empty and takes nothing: `state` tells why.
      read: (into) => Math.max(0, native.vchanRead(ring, into)),
      write: (from) => Math.max(0, native.vchanWrite(ring, from)),
      close: () => native.vchanClose(ring),
    };
  },
};

/** By `enum pixels_result` of bundler/native/pixels.h. */
const pixelProgress: readonly PixelProgress[] = ["end", "done", "wait", "more"];

function progress(result: number, call: string, operand: number): PixelProgress {
  return pixelProgress[checked(result, call, operand)] ?? "end";
}

const framebuffers: Framebuffers = {
  mode(fd) {
    const fields = resultOf(native.framebufferMode(fd), "framebuffer mode", fd);
    const [width, height, stride, size, bitsPerPixel, red, green, blue] = fields;
    return { width, height, stride, size, bitsPerPixel, red, green, blue };
  },
  setMode: (fd, width, height) =>
    void checked(native.setFramebufferMode(fd, width, height), "framebuffer mode", `${width}x${height}`),
  pixelSource(socket) {
    const pixels = resultOf(native.pixelsOpen(socket), "pixel source", socket);
    return {
      take: (into) => progress(native.pixelsTake(pixels, into), "recv", socket),
      begin(framebuffer, { source, target, stride, size }, { x, y, width, height }) {
        const plan = Int32Array.of(
          ...[framebuffer, stride, size, source.width, source.height],
          ...[target.x, target.y, target.width, target.height],
          ...[x, y, width, height],
        );
        checked(native.pixelsBegin(pixels, plan), "rectangle", `${width}x${height}+${x}+${y}`);
      },
      draw: () => progress(native.pixelsDraw(pixels), "draw", socket),
      clear: (framebuffer, size) =>
        void checked(native.pixelsClear(pixels, framebuffer, size), "clear", size),
      close: () => native.pixelsClose(pixels),
    };
  },
};

/** The platform port on the native module: what the compiled program runs on. */
export function createPlatform(): Platform {
  const storage = createStorage(descriptors, openFlags);
  return { clock: createClock(), descriptors, files, processes, sockets, vchans, storage, framebuffers };
}
