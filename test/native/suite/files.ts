import * as native from "stubdom-native";
import {
  close,
  done,
  equal,
  errno,
  freshFile,
  freshPath,
  type Group,
  holds,
  list,
  refusals,
  text,
} from "../harness.ts";

const READ = 0;
const WRITE = 1;
const CREATE = 0o100;
const NON_BLOCKING = 0o4000;

export const fileTests: Record<string, Group> = {
  open: {
    ...refusals("open", native.open, "path", "integer", "integer"),
    "opens, refuses, creates": () => {
      equal(native.open("", READ, 0), errno.ENOENT);
      equal(native.open("/tmp", WRITE, 0), errno.EISDIR);
      equal(native.open("/dev/null/x", READ, 0), errno.ENOTDIR);
      close(done(native.open(freshPath(), WRITE | CREATE, 0o600)));
    },
    "names of any characters": () => {
      const path = `${freshPath()}-é€😀 \n"`;
      close(done(native.open(path, WRITE | CREATE, 0o600)));
      equal(native.remove(path), 0);
    },
  },
  close: refusals("close", native.close, "descriptor"),
  read: {
    ...refusals("read", native.read, "descriptor", "bytes"),
    "part of a buffer, and nothing beside it": () => {
      const fd = freshFile("abcdef");
      const bytes = new Uint8Array(8).fill(0x2e);
      equal(native.read(fd, bytes.subarray(3, 5)), 2);
      equal(native.decodeText(bytes), "...ab...");
      equal(native.read(fd, new Uint8Array(0)), 0);
      equal(native.read(fd, new Uint8Array(100)), 4);
      equal(native.read(fd, new Uint8Array(100)), 0);
      close(fd);
    },
    "wider elements count in bytes": () => {
      const fd = freshFile("abcdefgh");
      const words = new Uint32Array(3);
      equal(native.read(fd, words.subarray(1, 2) as unknown as Uint8Array), 4);
      equal([...words], [0, 0x64636261, 0]);
      close(fd);
    },
    "would block, and a directory": () => {
      const [a, b] = list(native.pipe());
      equal(native.read(a, new Uint8Array(1)), errno.EAGAIN);
      const directory = done(native.open("/tmp", READ, 0));
      equal(native.read(directory, new Uint8Array(1)), errno.EISDIR);
      close(a, b, directory);
    },
  },
  write: {
    ...refusals("write", native.write, "descriptor", "bytes"),
    "part of a buffer, nothing, and to nobody": () => {
      const fd = freshFile();
      equal(native.write(fd, text("abcdef").subarray(1, 4)), 3);
      equal(native.write(fd, new Uint8Array(0)), 0);
      equal(native.size(fd), 3);
      const [a, b] = list(native.pipe());
      close(a);
      equal(native.write(b, text("x")), errno.EPIPE);
      close(fd, b);
    },
    "until the pipe is full": () => {
      const [a, b] = list(native.pipe());
      equal(native.write(b, new Uint8Array(1 << 20)), 65536);
      equal(native.write(b, new Uint8Array(1)), errno.EAGAIN);
      close(a, b);
    },
  },
  seek: {
    ...refusals("seek", native.seek, "descriptor", "integer"),
    "beyond 4 GiB, back, and where it cannot": () => {
      const fd = freshFile();
      equal(native.seek(fd, 2 ** 40), 2 ** 40);
      equal(native.seek(fd, -1), errno.EINVAL);
      const [a, b] = list(native.pipe());
      equal(native.seek(a, 0), errno.ESPIPE);
      close(fd, a, b);
    },
  },
  dataSync: {
    ...refusals("dataSync", native.dataSync, "descriptor"),
    "a file, and what has no disk": () => {
      const fd = freshFile("x");
      equal(native.dataSync(fd), 0);
      const [a, b] = list(native.pipe());
      equal(native.dataSync(a), errno.EINVAL);
      close(fd, a, b);
    },
  },
  size: {
    ...refusals("size", native.size, "descriptor"),
    "a file": () => {
      const fd = freshFile("abc");
      equal(native.size(fd), 3);
      close(fd);
    },
  },
  status: {
    ...refusals("status", (path: string) => native.status(path, false), "path"),
    "a directory, a device, a link itself": () => {
      equal((list(native.status("/tmp", false))[0] & 0o170000) === 0o040000, true);
      equal((list(native.status("/dev/null", false))[0] & 0o170000) === 0o020000, true);
      const path = freshPath();
      native.symlink("/nowhere", path);
      equal((list(native.status(path, false))[0] & 0o170000) === 0o120000, true);
      equal(native.status("", false), errno.ENOENT);
    },
    "what a link leads to": () => {
      const [first, second] = [freshPath(), freshPath()];
      native.symlink("/dev/null", first);
      native.symlink(first, second);
      equal((list(native.status(second, true))[0] & 0o170000) === 0o020000, true);
      equal((list(native.status("/tmp", true))[0] & 0o170000) === 0o040000, true);
      const nowhere = freshPath();
      native.symlink("/nowhere", nowhere);
      equal(native.status(nowhere, true), errno.ENOENT);
    },
  },
  readDirectory: {
    ...refusals("readDirectory", native.readDirectory, "path"),
    "empty, full, missing, no directory": () => {
      const path = freshPath();
      equal(native.makeDirectory(path), 0);
      equal(native.readDirectory(path), []);
      for (let n = 0; n < 500; n++) close(freshFile("", `${path}/${n}`));
      equal(list(native.readDirectory(path)).length, 500);
      equal(native.readDirectory(`${path}/none`), errno.ENOENT);
      equal(native.readDirectory("/dev/null"), errno.ENOTDIR);
    },
  },
  makeDirectory: {
    ...refusals("makeDirectory", native.makeDirectory, "path"),
    once: () => {
      const path = freshPath();
      equal(native.makeDirectory(path), 0);
      equal(native.makeDirectory(path), errno.EEXIST);
      equal(native.remove(path), 0);
    },
  },
  makeFifo: {
    ...refusals("makeFifo", native.makeFifo, "path"),
    once: () => {
      const path = freshPath();
      equal(native.makeFifo(path), 0);
      equal(native.makeFifo(path), errno.EEXIST);
      close(done(native.open(path, READ | NON_BLOCKING, 0)));
    },
  },
  remove: {
    ...refusals("remove", native.remove, "path"),
    "a file, an empty directory, no full one": () => {
      const path = freshPath();
      native.makeDirectory(path);
      close(freshFile("", `${path}/x`));
      equal(native.remove(path), errno.ENOTEMPTY);
      equal([native.remove(`${path}/x`), native.remove(path), native.remove(path)], [0, 0, errno.ENOENT]);
    },
  },
  rename: {
    ...refusals("rename", native.rename, "path", "path"),
    "over another": () => {
      const [from, to] = [freshPath(), freshPath()];
      close(freshFile("new", from), freshFile("old!", to));
      equal(native.rename(from, to), 0);
      equal(list(native.status(to, false))[1], 3);
      equal(native.rename(from, to), errno.ENOENT);
    },
  },
  readLink: {
    ...refusals("readLink", native.readLink, "path"),
    "a target as long as can be, and what is no link": () => {
      const path = freshPath();
      const target = "x".repeat(4095);
      equal(native.symlink(target, path), 0);
      equal(native.readLink(path), target);
      equal(native.readLink("/tmp"), errno.EINVAL);
    },
  },
  symlink: {
    ...refusals("symlink", native.symlink, "path", "path"),
    once: () => {
      const path = freshPath();
      equal([native.symlink("a", path), native.symlink("a", path)], [0, errno.EEXIST]);
      equal(native.symlink("", path), errno.ENOENT);
    },
  },
  mount: {
    ...refusals("mount", native.mount, "text", "path", "text", "integer", "text"),
    "a tmpfs, and what there is not": () => {
      const path = freshPath();
      native.makeDirectory(path);
      equal(native.mount("none", path, "tmpfs", 2 | 4 | 8, "size=64k,mode=700"), 0);
      equal(list(native.readDirectory(path)).length, 0);
      holds(native.mount("none", path, "no-such-fs", 0, "") < 0, "an unknown type is refused");
      equal(native.mount("none", `${path}/none`, "tmpfs", 0, ""), errno.ENOENT);
      equal(native.mount("none", path, "tmpfs", 0, "nonsense=1"), errno.EINVAL);
      equal(native.mount("none", path, "tmpfs", 0, "x".repeat(100_000)), errno.EINVAL);
    },
  },
};
