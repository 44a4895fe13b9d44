import { type Clock, type Platform, type Storage, SystemError } from "../../agent/platform/port.ts";
import { stateDevice } from "../../agent/savestate/protocol.ts";
import { XenstoreClient } from "../../agent/xenstore/client.ts";
import { RealClock } from "./clock.ts";
import { fakePlatform } from "./platform.ts";
import type { FakeXenbus, FakeXenstored } from "./xenstored.ts";
import { xxh64 } from "./xxh64.ts";

interface Inode {
  bytes: Uint8Array;
  /** A FIFO's waiting bytes, in place of contents. */
  fifo?: {
    queue: Uint8Array[];
    writerGone: boolean;
    readable: (() => void) | null;
    reader: boolean;
    room: (() => void)[];
  };
}

interface Open {
  readonly inode: Inode;
  readonly name: string;
  /** A loop device: cleared with its last user. */
  readonly loop?: Loop;
  /** A pipe's or terminal's own ways. */
  readonly stream?: Stream;
}

interface Stream {
  read?(into: Uint8Array): number | null;
  write?(from: Uint8Array): number;
}

interface Loop {
  readonly minor: number;
  readonly file: Inode;
  /** What it shows of its file. */
  size: number;
  users: number;
}

/** A process on one machine: its descriptors, and whether somebody has killed it. */
export class FakeProcess {
  readonly platform: Platform;
  readonly opened = new Map<number, Open>();
  /** Every call in the order of coming, by name: where a test can step in. */
  readonly steps: string[] = [];
  /** Called before each step; may throw. */
  onStep: (step: string, count: number) => void = () => {};
  /** What was written into each pipe, by the number of its reading end. */
  readonly piped = new Map<number, number[]>();
  /** Nobody reads the pipes any more. */
  pipesBroken = false;
  /** What console 1 has carried, and what console 2 will give. */
  readonly consoleOutput: number[] = [];
  consoleInput: Uint8Array = new Uint8Array(0);
  #dead = false;
  #next = 10;
  #stores: FakeXenbus[] = [];

  constructor(
    private readonly host: FakeXenHost,
    readonly domid: number,
    readonly files: Map<string, Inode>,
    pid: number,
  ) {
    this.platform = fakePlatform({
      clock: host.clock,
      descriptors: this.#descriptors(),
      files: this.#fileSystem() as Platform["files"],
      storage: this.#storage(),
      processes: { pid },
      sockets: {
        pipe: () => this.#pipe(),
        openTerminalRaw: (path) => this.#terminal(path),
        kernelEvents: () => this.#add({ inode: { bytes: new Uint8Array(0) }, name: "events", stream: {} }),
      },
    });
  }

  #pipe(): [number, number] {
    const bytes: number[] = [];
    const inode = { bytes: new Uint8Array(0) };
    const end = this.#add({ inode, name: "pipe", stream: {} });
    this.piped.set(end, bytes);
    const write = (from: Uint8Array) => {
      if (this.pipesBroken) throw new SystemError("EPIPE", "write", "pipe");
      for (const byte of from) bytes.push(byte);
      return from.length;
    };
    return [end, this.#add({ inode, name: "pipe", stream: { write } })];
  }

  #terminal(path: string): number {
    let at = 0;
    const stream: Stream = {
      // As little at a time as a console's ring gives.
      read: (into) => {
        const part = this.consoleInput.subarray(at, at + Math.min(into.length, 999));
        into.set(part);
        at += part.length;
        // A console does not end: it falls silent.
        return part.length === 0 ? null : part.length;
      },
      write: (from) => {
        const taken = from.subarray(0, 777);
        for (const byte of taken) this.consoleOutput.push(byte);
        return taken.length;
      },
    };
    return this.#add({ inode: { bytes: new Uint8Array(0) }, name: path, stream });
  }

  connect(): XenstoreClient {
    const bus = this.host.daemon.connect(this.domid);
    this.#stores.push(bus);
    const write = bus.write.bind(bus);
    const guarded = Object.assign(Object.create(bus) as FakeXenbus, {
      read: () => bus.read(),
      close: () => bus.close(),
      write: async (bytes: Uint8Array) => {
        this.#step(`xenstore ${bytes[0] ?? 0}`);
        await write(bytes);
      },
    });
    return new XenstoreClient(guarded, this.host.clock);
  }

  /** kill -9: nothing that it does from now on has any effect. */
  kill(): void {
    if (this.#dead) return;
    for (const fd of [...this.opened.keys()]) this.#close(fd);
    for (const store of this.#stores) store.close();
    this.#dead = true;
  }

  get dead(): boolean {
    return this.#dead;
  }

  #step(name: string): void {
    if (this.#dead) throw new Error("killed");
    this.steps.push(name);
    this.onStep(name, this.steps.length);
    if (this.#dead) throw new Error("killed");
  }

  #add(open: Open): number {
    const fd = this.#next++;
    this.opened.set(fd, open);
    if (open.loop !== undefined) open.loop.users++;
    return fd;
  }

  #close(fd: number): void {
    const open = this.opened.get(fd);
    if (open === undefined) throw new SystemError("EBADF", "close", String(fd));
    this.opened.delete(fd);
    if (open.loop !== undefined) this.host.releaseLoop(open.loop);
    if (open.inode.fifo !== undefined) {
      open.inode.fifo.reader = false;
      for (const wake of open.inode.fifo.room.splice(0)) wake();
    }
    this.host.locks.delete(fd * 1000 + this.domid);
  }

  #open(fd: number): Open {
    const open = this.opened.get(fd);
    if (open === undefined) throw new SystemError("EBADF", "use", String(fd));
    return open;
  }

  #lookUp(path: string): Inode {
    if (path === `/dev/${stateDevice.name}`) {
      const loop = this.host.loopFor(this.domid);
      if (loop !== undefined) return loop.file;
    }
    const inode = this.files.get(path);
    if (inode === undefined) throw new SystemError("ENOENT", "open", path);
    return inode;
  }

  #descriptors(): Partial<Platform["descriptors"]> {
    return {
      open: (path, options) => {
        this.#step(`open ${nameOf(path)}`);
        if (path === `/dev/${stateDevice.name}`) {
          const loop = this.host.loopFor(this.domid);
          if (loop === undefined) throw new SystemError("ENXIO", "open", path);
          return this.#add({ inode: loop.file, name: path, loop });
        }
        if (options.create && !this.files.has(path)) this.files.set(path, { bytes: new Uint8Array(0) });
        const inode = this.#lookUp(path);
        if (inode.fifo !== undefined) inode.fifo.reader = true;
        return this.#add({ inode, name: path });
      },
      close: (fd) => {
        if (!this.#dead) this.#close(fd);
      },
      size: (fd) => {
        const { inode, loop } = this.#open(fd);
        return loop?.size ?? inode.bytes.length;
      },
      read: (fd, into) => {
        const { inode, stream } = this.#open(fd);
        if (stream?.read !== undefined) return stream.read(into);
        const { fifo } = inode;
        if (fifo === undefined) throw new SystemError("EINVAL", "read", String(fd));
        const first = fifo.queue[0];
        if (first === undefined) return fifo.writerGone ? 0 : null;
        const part = first.subarray(0, into.length);
        into.set(part);
        if (part.length === first.length) fifo.queue.shift();
        else fifo.queue[0] = first.subarray(part.length);
        for (const wake of fifo.room.splice(0)) wake();
        return part.length;
      },
      write: (fd, from) => {
        const { stream } = this.#open(fd);
        if (stream?.write === undefined) throw new SystemError("EBADF", "write", String(fd));
        return stream.write(from);
      },
      onWritable: () => {},
      onReadable: (fd, ready) => {
        const fifo = this.opened.get(fd)?.inode.fifo;
        if (fifo === undefined) return;
        fifo.readable = ready;
        if (ready !== null && (fifo.queue.length > 0 || fifo.writerGone))
          setImmediate(() => fifo.readable?.());
      },
    };
  }

  #fileSystem(): Partial<Platform["files"]> {
    return {
      exists: (path) => {
        const device = path.endsWith(`/${stateDevice.name}`) && this.host.loopFor(this.domid) !== undefined;
        const console = path.startsWith("/dev/hvc");
        return (
          device ||
          console ||
          this.files.has(path) ||
          [...this.files.keys()].some((f) => f.startsWith(`${path}/`))
        );
      },
      status: (path) => ({ kind: "file", size: this.#lookUp(path).bytes.length, mode: 0o600 }),
      makeDirectory: () => {},
      makeFifo: (path) => {
        this.files.set(path, {
          bytes: new Uint8Array(0),
          fifo: { queue: [], writerGone: false, readable: null, reader: false, room: [] },
        });
      },
      readDirectory: (path) =>
        [...this.files.keys()].filter((f) => f.startsWith(`${path}/`)).map((f) => f.slice(path.length + 1)),
      remove: (path) => {
        this.#step(`remove ${nameOf(path)}`);
        if (!this.files.delete(path)) throw new SystemError("ENOENT", "remove", path);
      },
      rename: (from, to) => {
        this.#step(`rename to ${nameOf(to)}`);
        this.files.set(to, this.#lookUp(from));
        this.files.delete(from);
      },
    };
  }

  #storage(): Partial<Storage> {
    const later = async <T>(name: string, act: () => T): Promise<T> => {
      this.#step(name);
      await new Promise((resolve) => setImmediate(resolve));
      this.#step(`${name} done`);
      return act();
    };
    return {
      hash: xxh64,
      buffer: (size) => new Uint8Array(size),
      readAt: (fd, into, offset) =>
        later(`read ${nameOf(this.#open(fd).name)}`, () => {
          const { inode, loop } = this.#open(fd);
          // xen-blkback looks at the size when it serves a request.
          if (loop !== undefined) loop.size = loop.file.bytes.length;
          const part = inode.bytes.subarray(offset, offset + into.length);
          into.set(part);
          return part.length;
        }),
      writeAt: (fd, from, offset) =>
        later(`write ${nameOf(this.#open(fd).name)}`, () => {
          const { inode, loop } = this.#open(fd);
          if (offset + from.length > inode.bytes.length) {
            if (loop !== undefined) throw new SystemError("ENOSPC", "write", String(fd));
            this.host.resize(inode, offset + from.length);
          }
          inode.bytes.set(from, offset);
        }),
      drain: (fd) => later(`drain ${nameOf(this.#open(fd).name)}`, () => {}),
      sync: (fd) => later(`sync ${nameOf(this.#open(fd).name)}`, () => {}),
      openNoFollow: (path, options) => {
        this.#step(`open ${nameOf(path)}`);
        if (options.exclusive && this.files.has(path)) throw new SystemError("EEXIST", "open", path);
        if (options.create && !this.files.has(path)) this.files.set(path, { bytes: new Uint8Array(0) });
        return this.#add({ inode: this.#lookUp(path), name: path });
      },
      openTemporary: () => {
        this.#step("open temporary");
        return this.#add({ inode: { bytes: new Uint8Array(0) }, name: "temporary" });
      },
      truncate: (fd, size) => {
        this.#step("truncate");
        this.host.resize(this.#open(fd).inode, size);
      },
      freeSpace: () => this.host.freeSpace,
      tryLock: (fd) => {
        if (this.host.locks.size > 0) return false;
        this.host.locks.add(fd * 1000 + this.domid);
        return true;
      },
      attachLoop: (fd) => {
        this.#step("attach loop");
        const loop = this.host.newLoop(this.#open(fd).inode);
        return { fd: this.#add({ inode: loop.file, name: "loop", loop }), major: 7, minor: loop.minor };
      },
      resizeLoop: () => this.#step("resize loop"),
      setPipeSize: () => {},
    };
  }
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1).replace(/\d+$/, "T");
}

/**
 * A Xen host in memory, as far as state disks need one: xenstored, dom0's and each domain's files, loop
 * devices, and the kernels' block backend and frontends, which connect and close as xenstore tells them.
 */
export class FakeXenHost {
  readonly dom0Files = new Map<string, Inode>();
  readonly locks = new Set<number>();
  readonly loops: Loop[] = [];
  readonly #real = new RealClock();
  freeSpace = 1 << 30;
  /** Domains whose frontend never closes its disk. */
  readonly stubborn = new Set<number>();
  #nextLoop = 0;
  #nextPid = 2;
  readonly clock: Clock;
  readonly #kernel: XenstoreClient;
  /** What the kernel's backend holds open, by the backend's path. */
  readonly #held = new Map<string, Loop>();

  /** @param clock everybody's; the machine's, which {@link hurry} drives, unless a test has its own */
  constructor(
    readonly daemon: FakeXenstored,
    clock?: Clock,
  ) {
    this.clock = clock ?? this.#real;
    this.#kernel = new XenstoreClient(daemon.connect(0), this.clock);
  }

  async start(): Promise<void> {
    this.dom0Files.set("/var/lib/xen/userdata", { bytes: new Uint8Array(0) });
    this.dom0Files.set("/var/lib/linux-stubdom/lock", { bytes: new Uint8Array(0) });
    this.daemon.set("/local/domain/0/backend/vbd", "");
    await this.#kernel.watch("/local/domain/0/backend/vbd", (path) => this.#backendChanged(path));
  }

  stop(): void {
    this.#kernel.close();
  }

  addStubdom(domid: number, target: number): void {
    this.daemon.set(`/local/domain/${domid}`, "");
    this.daemon.permit(`/local/domain/${domid}`, [
      { domid: 0, access: "none" },
      { domid, access: "read" },
    ]);
    this.daemon.set(`/local/domain/${target}/image/device-model-domid`, String(domid));
    this.daemon.set(
      `/local/domain/${target}/vm`,
      `/vm/00000000-0000-0000-0000-${String(target).padStart(12, "0")}`,
    );
    this.daemon.set(`/local/domain/${domid}/target`, String(target));
    this.daemon.permit(`/local/domain/${target}/vm`, [
      { domid: 0, access: "none" },
      { domid: target, access: "read" },
    ]);
    this.daemon.setTarget(domid, target);
    const model = `/local/domain/${domid}/device-model/${target}`;
    this.daemon.set(model, "");
    this.daemon.permit(model, [{ domid, access: "none" }]);
    this.daemon.set(`/local/domain/${domid}/device/vbd`, "");
    for (const id of [1, 2]) {
      const console = `/local/domain/${domid}/device/console/${id}`;
      this.daemon.set(console, "");
      this.daemon.permit(console, [{ domid, access: "none" }]);
      this.daemon.setAll({
        [`${console}/backend`]: `/local/domain/0/backend/console/${domid}/${id}`,
        [`${console}/output`]: "file:/var/lib/xen/somewhere",
        [`${console}/state`]: "4",
      });
    }
    this.daemon.introduceDomain(domid);
  }

  /** As `xl destroy` does: the nodes first. */
  destroy(domid: number, target: number): void {
    for (const path of [`/local/domain/${domid}`, `/local/domain/${target}`, `/libxl/${domid}`]) {
      if (this.daemon.get(path) !== undefined) this.daemon.remove(path);
    }
    this.dom0Files.delete(`/var/lib/xen/qemu-save.${target}`);
    this.daemon.releaseDomain(domid);
  }

  /**
   * From now on nobody has much patience: where somebody has gone, or says nothing, until it is seen. Not before, for a
   * machine that is busy with something else is slow as well.
   */
  hurry(times = 20): void {
    this.#real.run(times);
  }

  /** As if nothing had been. */
  calm(): void {
    this.#real.run(1);
  }

  process(domid: number): FakeProcess {
    const files = domid === 0 ? this.dom0Files : new Map<string, Inode>();
    return new FakeProcess(this, domid, files, this.#nextPid++);
  }

  file(path: string): Uint8Array | undefined {
    return this.dom0Files.get(path)?.bytes;
  }

  resize(inode: Inode, size: number): void {
    const bytes = new Uint8Array(size);
    bytes.set(inode.bytes.subarray(0, size));
    inode.bytes = bytes;
  }

  newLoop(file: Inode): Loop {
    const loop = { minor: this.#nextLoop++, file, size: file.bytes.length, users: 0 };
    this.loops.push(loop);
    return loop;
  }

  releaseLoop(loop: Loop): void {
    loop.users--;
    if (loop.users === 0) this.loops.splice(this.loops.indexOf(loop), 1);
  }

  loopFor(domid: number): Loop | undefined {
    const loop = this.#held.get(`/local/domain/0/backend/vbd/${domid}/${stateDevice.number}`);
    return loop;
  }

  #backendChanged(path: string): void {
    const found = /^\/local\/domain\/0\/backend\/vbd\/(\d+)(\/\d+)?/.exec(path);
    if (found === null) return;
    const domid = Number(found[1]);
    const back = `/local/domain/0/backend/vbd/${domid}/${stateDevice.number}`;
    const front = `/local/domain/${domid}/device/vbd/${stateDevice.number}`;
    const state = this.daemon.get(`${back}/state`);
    const held = this.#held.get(back);
    if (state === undefined || state === "5") {
      if (state === "5" && this.stubborn.has(domid)) return;
      if (held !== undefined) {
        this.#held.delete(back);
        this.releaseLoop(held);
      }
      if (state === "5") {
        if (this.daemon.get(front) !== undefined) this.daemon.set(`${front}/state`, "6", domid);
        this.daemon.set(`${back}/state`, "6");
      }
    } else if (state === "1" && held === undefined) {
      const minor = Number.parseInt(this.daemon.get(`${back}/physical-device`)?.split(":")[1] ?? "", 16);
      const loop = this.loops.find((candidate) => candidate.minor === minor);
      // The device has gone with whoever made it: the backend reports and waits.
      if (loop === undefined) return;
      loop.users++;
      this.#held.set(back, loop);
      this.daemon.set(`${back}/state`, "4");
      this.daemon.set(`${front}/state`, "4", domid);
    }
  }
}

/** A QEMU that has a state to save. */
export class FakeSavingQemu {
  /** Writes its state, and never says so. */
  silent = false;

  constructor(
    private readonly process: FakeProcess,
    public state: Uint8Array,
    private readonly failAt = Number.POSITIVE_INFINITY,
  ) {}

  async execute(command: string, args: { filename?: unknown } = {}) {
    if (command === "query-version") return { qemu: { major: 10, minor: 0, micro: 13 }, package: "" };
    const inode = this.process.files.get(String(args.filename));
    const fifo = inode?.fifo;
    if (fifo === undefined) throw new Error(`no FIFO ${String(args.filename)}`);
    for (let at = 0; at < this.state.length; at += 32768) {
      if (at >= this.failAt) {
        fifo.writerGone = true;
        fifo.readable?.();
        throw new Error("QEMU was killed");
      }
      if (!fifo.reader) throw new Error("saving Xen device state failed");
      fifo.queue.push(this.state.slice(at, at + 32768));
      fifo.readable?.();
      if (fifo.queue.length > 4) await new Promise<void>((resolve) => fifo.room.push(resolve));
    }
    fifo.writerGone = true;
    fifo.readable?.();
    if (this.silent) await new Promise(() => {});
    return {};
  }
}
