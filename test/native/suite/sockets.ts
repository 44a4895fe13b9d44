import * as native from "stubdom-native";
import {
  CLOSED,
  close,
  done,
  equal,
  errno,
  freshFile,
  freshPath,
  type Group,
  holds,
  list,
  ready,
  refusals,
  text,
} from "../harness.ts";

const O_CLOEXEC = 0o2000000;

export const socketTests: Record<string, Group> = {
  socketPair: {
    "carries both ways and tells the end": () => {
      const [a, b] = list(native.socketPair());
      const bytes = new Uint8Array(4);
      equal(native.read(a, bytes), errno.EAGAIN);
      equal(native.write(b, text("x")), 1);
      equal(native.read(a, bytes), 1);
      close(b);
      equal(native.read(a, bytes), 0);
      equal(native.write(a, text("x")), errno.EPIPE);
      close(a);
    },
    "is not inherited": () => {
      const [a, b] = list(native.socketPair());
      for (const fd of [a, b]) holds((flagsOf(fd) & O_CLOEXEC) !== 0, "close-on-exec");
      close(a, b);
    },
  },
  sendDescriptor: {
    ...refusals("sendDescriptor", native.sendDescriptor, "descriptor", "bytes", "integer"),
    "hands over a copy, with the first byte": () => {
      const [a, b] = list(native.socketPair());
      const [reading, writing] = list(native.pipe());
      const byte = new Uint8Array(1);
      equal(native.sendDescriptor(a, text("xy"), writing), 2);
      close(writing);
      // It is on its way, and so the pipe has not ended; whoever reads without wanting it makes it end.
      equal(native.read(reading, byte), errno.EAGAIN);
      equal(native.read(b, byte), 1);
      equal(native.read(reading, byte), 0);
      equal(native.read(b, byte), 1);
      equal(byte[0], 0x79);
      close(a, b, reading);
    },
    "what cannot be sent, or sent to": () => {
      const [a, b] = list(native.socketPair());
      const [reading, writing] = list(native.pipe());
      equal(native.sendDescriptor(a, new Uint8Array(0), b), errno.EINVAL);
      equal(native.sendDescriptor(a, text("x"), CLOSED), errno.EBADF);
      equal(native.sendDescriptor(CLOSED, text("x"), a), errno.EBADF);
      equal(native.sendDescriptor(writing, text("x"), a), -88);
      equal(native.read(b, new Uint8Array(1)), errno.EAGAIN);
      close(b);
      equal(native.sendDescriptor(a, text("x"), reading), errno.EPIPE);
      close(a, reading, writing);
    },
    "a socket that is full": () => {
      const [a, b] = list(native.socketPair());
      const lump = new Uint8Array(65536);
      while (native.write(a, lump) > 0);
      equal(native.sendDescriptor(a, lump, b), errno.EAGAIN);
      close(a, b);
    },
  },
  pipe: {
    "carries one way": () => {
      const [a, b] = list(native.pipe());
      equal(native.write(a, text("x")), errno.EBADF);
      equal(native.write(b, text("x")), 1);
      equal(native.read(a, new Uint8Array(2)), 1);
      close(a, b);
    },
  },
  listenUnix: {
    ...refusals("listenUnix", native.listenUnix, "path"),
    "as long as an address can be, and no longer": () => {
      const path = `${freshPath()}${"x".repeat(200)}`;
      close(done(native.listenUnix(path.slice(0, 107))));
      equal(native.listenUnix(path.slice(0, 108)), errno.ENAMETOOLONG);
    },
    "in the place of an old one": () => {
      const path = freshPath();
      close(done(native.listenUnix(path)));
      close(done(native.listenUnix(path)));
      equal(native.listenUnix("/nowhere/at/all"), errno.ENOENT);
    },
  },
  connectUnix: {
    ...refusals("connectUnix", native.connectUnix, "path"),
    "nobody there": () => {
      const path = freshPath();
      equal(native.connectUnix(path), errno.ENOENT);
      close(done(native.listenUnix(path)));
      equal(native.connectUnix(path), -111);
    },
    "as long as an address can be, and no longer": () => {
      const path = `${freshPath()}${"x".repeat(200)}`;
      equal(native.connectUnix(path.slice(0, 107)), errno.ENOENT);
      equal(native.connectUnix(path.slice(0, 108)), errno.ENAMETOOLONG);
    },
  },
  accept: {
    ...refusals("accept", native.accept, "descriptor"),
    "somebody and nobody": async () => {
      const path = freshPath();
      const listening = done(native.listenUnix(path));
      equal(native.accept(listening), errno.EAGAIN);
      const client = done(native.connectUnix(path));
      await ready(listening);
      const server = done(native.accept(listening));
      native.write(client, text("hello"));
      equal(native.read(server, new Uint8Array(10)), 5);
      close(listening, client, server);
    },
    "what does not listen": () => {
      const fd = freshFile();
      equal(native.accept(fd), -88);
      close(fd);
    },
  },
  netlinkRoute: {
    ...refusals("netlinkRoute", native.netlinkRoute, "integer"),
    answers: async () => {
      const fd = done(native.netlinkRoute(1));
      // RTM_GETLINK, all of them: netlink.ts has the layout.
      const request = new Uint8Array(32);
      request.set([32, 0, 0, 0, 18, 0, 1, 3, 1]);
      equal(native.write(fd, request), 32);
      await ready(fd);
      holds(native.read(fd, new Uint8Array(32768)) > 32, "there is a link");
      close(fd);
    },
    "any groups": () => {
      for (const groups of [0, 1, 2 ** 31, 2 ** 32 - 1, -1]) {
        const fd = native.netlinkRoute(groups);
        if (fd >= 0) close(fd);
      }
    },
  },
  kernelEvents: {
    // Tests that run beside this one make devices too.
    "tells of a device": async () => {
      const fd = done(native.kernelEvents());
      const tap = done(native.openTap("heard0", false));
      const event = new Uint8Array(2048);
      for (let heard = ""; heard !== "add@/devices/virtual/net/heard0"; ) {
        await ready(fd);
        const length = done(native.read(fd, event));
        heard = native.decodeText(event.subarray(0, length)).split("\0")[0] ?? "";
      }
      close(tap, fd);
    },
    "an event that does not fit is cut, one that nobody reads in time is no error": async () => {
      const fd = done(native.kernelEvents());
      for (let taps = 0; taps < 300; taps++) close(done(native.openTap(`many${taps}`, false)));
      await ready(fd);
      equal(native.read(fd, new Uint8Array(3)), 3);
      let left = 5000;
      while (left > 0 && native.read(fd, new Uint8Array(2048)) > 0) left--;
      const last = native.read(fd, new Uint8Array(2048));
      holds(last > 0 || last === errno.EAGAIN, "no overrun is told");
      close(fd);
    },
  },
  openTap: {
    ...refusals("openTap", native.openTap, "text"),
    "as long as a name can be, and no longer": () => {
      close(done(native.openTap("x".repeat(15), false)));
      equal(native.openTap("x".repeat(16), false), errno.ENAMETOOLONG);
      equal(native.openTap("x".repeat(100_000), true), errno.ENAMETOOLONG);
    },
    "once at a time, and not any name": () => {
      const tap = done(native.openTap("tap0", true));
      equal(native.openTap("tap0", true), -16);
      equal(native.openTap("a/b", false), errno.EINVAL);
      equal(native.read(tap, new Uint8Array(100)) < 0, true);
      close(tap);
      close(done(native.openTap("tap0", false)));
    },
  },
  terminalRaw: {
    ...refusals("terminalRaw", native.terminalRaw, "descriptor"),
    "a terminal": () => {
      mountTerminals();
      const master = done(native.open("/dev/ptmx", 2, 0));
      equal(native.terminalRaw(master), 0);
      close(master);
    },
    "what is none": () => {
      const fd = freshFile();
      equal(native.terminalRaw(fd), errno.ENOTTY);
      equal(native.terminalRaw(CLOSED), errno.EBADF);
      close(fd);
    },
  },
  openTerminalRaw: {
    ...refusals("openTerminalRaw", native.openTerminalRaw, "path"),
    "a terminal, and what is none": () => {
      mountTerminals();
      close(done(native.openTerminalRaw("/dev/ptmx")));
      equal(native.openTerminalRaw("/dev/null"), errno.ENOTTY);
      equal(native.openTerminalRaw("/nowhere"), errno.ENOENT);
    },
  },
};

/** The build root has no pseudo-terminals; seen by the tests alone. */
function mountTerminals(): void {
  done(native.mount("devpts", "/dev/pts", "devpts", 0, "newinstance,ptmxmode=666"));
}

function flagsOf(fd: number): number {
  const info = done(native.open(`/proc/self/fdinfo/${fd}`, 0, 0));
  const bytes = new Uint8Array(4096);
  const length = done(native.read(info, bytes));
  close(info);
  const flags = /flags:\s+(\d+)/.exec(native.decodeText(bytes.subarray(0, length)))?.[1] ?? "";
  return Number.parseInt(flags, 8);
}
