import { readFileSync } from "node:fs";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { askFirst } from "../../../agent/init/first-questions.ts";
import { Stubdom } from "../../../agent/init/stubdom.ts";
import { createLog, type Log } from "../../../agent/log/log.ts";
import {
  type ExitStatus,
  type Platform,
  type SignalName,
  type SpawnOptions,
  SystemError,
} from "../../../agent/platform/port.ts";
import { DescriptorStream } from "../../../agent/platform/stream.ts";
import { xenbusDevice } from "../../../agent/xenstore/xenbus-device.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { FakeDescriptors } from "../../fakes/descriptors.ts";
import { FakePciSysfs } from "../../fakes/pci.ts";
import { FakeFiles, fakePlatform } from "../../fakes/platform.ts";
import { FakeQemuMonitor, type FakeQemuOptions } from "../../fakes/qemu.ts";
import { FakeVchans } from "../../fakes/vchan.ts";
import { FakeXenbusDescriptors } from "../../fakes/xenbus-descriptors.ts";
import { type FakeXenbus, FakeXenstored } from "../../fakes/xenstored.ts";
import { FakeRouteKernel } from "../frontends/net/route-kernel.ts";

// Loaded here once: the stages' turns of the event loop are not to be counted by the disk's speed.
await Promise.all([
  import("../../../agent/init/configuration.ts"),
  import("../../../agent/init/launch.ts"),
  import("../../../agent/init/serving.ts"),
  import("../../../agent/init/debugging.ts"),
  import("../../../agent/passthrough/passthrough.ts"),
  import("../../../agent/qemu/supervisor.ts"),
  import("../../../agent/savestate/restore.ts"),
  import("../../../agent/screen/screen.ts"),
]);

/** What `scripts/capture-dm-argv.ts` saw libxl write. */
interface Captured {
  readonly target: number;
  readonly stubdom: number;
  readonly argv: readonly string[];
  readonly xenstore: Readonly<Record<string, string>>;
}

export interface StageOptions extends FakeQemuOptions {
  /** A capture of `test/golden/dm-argv`, default `trixie-one-disk`. */
  readonly guest?: string;
  /** Backends that never connect, `vbd/768`. */
  readonly dead?: readonly string[];
  /** Why QEMU cannot be executed, as execve(2) has it. */
  readonly refused?: string;
  /** Nothing ends QEMU, a signal neither. */
  readonly immortal?: boolean;
  readonly commandLine?: string;
  /** Words behind those that libxl wrote: device_model_args_hvm. */
  readonly moreArguments?: readonly string[];
  /** The console takes nothing for so long. */
  readonly log?: { flush(): Promise<void> };
}

const qemuPid = 77;
const uuid = "/vm/01234567-89ab-cdef-0123-456789abcdef";
/** Descriptors of the kernel's side that are no pipe or socket: terminals, the vchan's. */
const firstOther = 1000;
/** Those of xenstored, among them. */
const firstXenbus = 2000;

/** The whole of PID 1 in a world of fakes: libxl's tree, a kernel whose frontends connect, and a QEMU. */
export class Stage {
  readonly daemon = new FakeXenstored({ largestPiece: 4096 });
  readonly clock = new FakeClock();
  readonly kernel = new FakeDescriptors();
  readonly files = new FakeFiles();
  readonly vchans = new FakeVchans();
  readonly pci = new FakePciSysfs();
  /** The netfronts themselves are not there: whoever gets as far as joining one fails. */
  readonly route = new FakeRouteKernel([]);
  /** The agent's own connection: the first that is opened once those are there that read. */
  readonly bus: FakeXenbus;
  readonly xenbus: FakeXenbusDescriptors;
  /** Done to each connection that reads, by its place from 1 on. */
  prepare: (bus: FakeXenbus, place: number) => void = () => {};
  #connections = 0;
  #questionsAsked = false;
  #connected = false;
  readonly log: Log;
  /** `level: message`, in order. */
  readonly lines: string[] = [];
  readonly poweredOff: string[] = [];
  /** Within which the machine was to end in any case, in seconds. */
  readonly deadlines: number[] = [];
  /** Domains that would crash along. */
  readonly crashesAlong: number[] = [];
  readonly spawned: SpawnOptions[] = [];
  readonly killed: string[] = [];
  /** Who was told to interrupt nobody. */
  readonly calmed: number[] = [];
  readonly stubdom: Stubdom;
  readonly platform: Platform;
  readonly captured: Captured;
  readonly argvPath = `${uuid}/image/dm-argv`;
  /** QEMU's ends of the agent's monitor and of its output, once it runs. */
  monitor: FakeQemuMonitor | undefined;
  /** QEMU's ends of the toolstack's sessions, in order. */
  readonly sessions: FakeQemuMonitor[] = [];
  #monitorStream: DescriptorStream | undefined;
  #output = -1;
  #alive = false;
  #ended: ExitStatus[] = [];
  #deliver: (signal: SignalName) => void = () => {};
  readonly #others = new Map<number, string>();

  constructor(readonly options: StageOptions = {}) {
    const path = new URL(`../../golden/dm-argv/${options.guest ?? "trixie-one-disk"}.json`, import.meta.url);
    this.captured = JSON.parse(readFileSync(path, "utf8")) as Captured;
    this.bus = this.daemon.connect(this.captured.stubdom);
    this.xenbus = new FakeXenbusDescriptors(firstXenbus, () => this.#connectXenbus());
    this.#writeTree();
    this.#writeFiles();
    this.platform = this.#platform();
    const log = createLog(this.clock, {
      write: (line) => {
        const { level, msg } = JSON.parse(line) as { level: string; msg: string };
        this.lines.push(`${level}: ${msg}`);
      },
      flush: () => options.log?.flush() ?? Promise.resolve(),
    });
    log.configure({ level: "info", format: "json" });
    this.log = { ...log, configure() {} };
    this.stubdom = new Stubdom(this.platform, this.log);
  }

  /** As runInit does it. */
  async run(): Promise<void> {
    try {
      const questions = askFirst(this.platform);
      this.#questionsAsked = true;
      await this.stubdom.boot(questions);
    } catch (error) {
      await this.stubdom.fail(error);
    }
  }

  /** Lets so much time pass, in small steps, so that what takes several turns is not late. */
  async pass(milliseconds: number): Promise<void> {
    const step = Math.max(50, Math.ceil(milliseconds / 20));
    for (let left = milliseconds; left > 0; left -= step) {
      await this.quiet();
      await this.clock.advance(Math.min(step, left));
    }
    await this.quiet();
  }

  async quiet(): Promise<void> {
    for (let turn = 0; turn < 40; turn++) await settle();
  }

  /** Boots until it serves the toolstack. */
  async running(): Promise<void> {
    void this.run();
    for (let turn = 0; turn < 20 && this.agent("phase") !== "running"; turn++) await this.quiet();
    if (this.agent("phase") !== "running") throw new Error(`not running:\n${this.lines.join("\n")}`);
    await this.quiet();
  }

  get home(): string {
    return `/local/domain/${this.captured.stubdom}`;
  }

  /** As libxl and xen-pciback do it: gives this domain a device of the host, shown at an address here. */
  assignPci(host: string, local: string, options = "permissive=0"): void {
    const { stubdom } = this.captured;
    const backend = `/local/domain/0/backend/pci/${stubdom}/0`;
    this.daemon.set(backend, "");
    this.daemon.permit(backend, [
      { domid: 0, access: "none" },
      { domid: stubdom, access: "read" },
    ]);
    const nodes = {
      num_devs: "1",
      "dev-0": host,
      "vdev-0": local,
      "state-0": "3",
      "opts-0": options,
      state: "4",
    };
    for (const [name, value] of Object.entries(nodes)) this.daemon.set(`${backend}/${name}`, value);
    this.daemon.set(`${this.home}/device/pci/0/backend`, backend, stubdom);
    this.daemon.set(`${this.home}/device/pci/0/state`, "3", stubdom);
  }

  /** What dom0 sees of the agent. */
  agent(node: string): string | undefined {
    return this.daemon.get(`${this.home}/device-model/${this.captured.target}/agent/${node}`);
  }

  of(level: string): string[] {
    return this.lines
      .filter((line) => line.startsWith(`${level}: `))
      .map((line) => line.slice(level.length + 2));
  }

  signal(name: SignalName): void {
    this.#deliver(name);
  }

  print(text: string): void {
    this.kernel.write(this.#output, encodeText(text));
  }

  /** QEMU ends, as the kernel tells it: its descriptors close, then SIGCHLD. */
  die(status: Partial<ExitStatus>): void {
    if (!this.#alive) return;
    this.#alive = false;
    this.kernel.close(this.#output);
    this.#monitorStream?.close();
    this.#ended.push({ pid: qemuPid, code: null, signal: null, ...status });
    setImmediate(() => this.#deliver("SIGCHLD"));
  }

  #writeTree(): void {
    const { captured, daemon, home } = this;
    const { target, stubdom } = captured;
    daemon.set(home, "", 0);
    daemon.permit(home, [
      { domid: 0, access: "none" },
      { domid: stubdom, access: "read" },
    ]);
    daemon.set(`${home}/domid`, String(stubdom));
    // libxl gives it that one directory of device-model, not device-model itself.
    daemon.set(`${home}/device-model`, "", 0);
    daemon.permit(`${home}/device-model`, [
      { domid: 0, access: "none" },
      { domid: stubdom, access: "read" },
    ]);
    for (const name of ["error", `device-model/${target}`, "console", "device"]) {
      daemon.set(`${home}/${name}`, "", stubdom);
      daemon.permit(`${home}/${name}`, [{ domid: stubdom, access: "none" }]);
    }
    for (const [path, raw] of Object.entries(captured.xenstore)) {
      const value = raw.replaceAll("STUBDOM", String(stubdom)).replaceAll("TARGET", String(target));
      daemon.set(`${home}/${path}`, value);
      const backend = /^(.*)\/backend$/.exec(path)?.[1];
      if (backend !== undefined) this.#backend(backend, value);
    }
    // libxl gives the stub domain the guest's rights.
    daemon.setTarget(stubdom, target);
    const readable = (path: string, domid: number) => {
      daemon.set(path, "");
      daemon.permit(path, [
        { domid: 0, access: "none" },
        { domid, access: "read" },
      ]);
    };
    // The guest's own are the guest's to read, QEMU's arguments the stub domain's; what is in there is as they are.
    readable(`/local/domain/${target}`, target);
    readable(uuid, target);
    readable(this.argvPath, stubdom);
    daemon.set(`/local/domain/${target}/vm`, uuid);
    for (const [index, argument] of [...captured.argv, ...(this.options.moreArguments ?? [])].entries())
      daemon.set(`${this.argvPath}/${String(index + 1).padStart(3, "0")}`, argument);
  }

  /** A backend that connects, and the frontend that our kernel then brings up, unless it is to be dead. */
  #backend(frontend: string, path: string): void {
    const [kind = "", id = ""] = frontend.split("/").slice(-2);
    const alive = !this.options.dead?.includes(`${kind}/${id}`);
    this.daemon.set(path, "");
    this.daemon.permit(path, [
      { domid: 0, access: "none" },
      { domid: this.captured.stubdom, access: "read" },
    ]);
    const disk = kind === "vbd" ? { dev: "hda", mode: "w", params: "/root/hda.img" } : {};
    for (const [name, value] of Object.entries({ state: alive ? "4" : "2", ...disk })) {
      this.daemon.set(`${path}/${name}`, value);
    }
    if (!alive || frontend === "console") return;
    setImmediate(() => {
      if (this.daemon.get(`${this.home}/${frontend}/state`) === "1")
        this.daemon.set(`${this.home}/${frontend}/state`, "4", this.captured.stubdom);
    });
  }

  #writeFiles(): void {
    const { files } = this;
    files.put("/proc/cmdline", this.options.commandLine ?? "");
    files.put("/proc/24/comm", "khvcd\n");
    files.put("/proc/meminfo", "MemTotal:       60000 kB\nMemAvailable:   40000 kB\n");
    for (const path of ["vm/overcommit_memory", "vm/swappiness", "kernel/printk", "net/core/wmem_default"])
      files.put(`/proc/sys/${path}`, "");
    for (const set of ["bset", "inheritable"]) files.put(`/proc/sys/kernel/usermodehelper/${set}`, "");
    for (const disk of ["a", "b", "c", "d"]) files.put(`/dev/xvd${disk}`, "");
    for (const number of [1, 2, 3]) files.put(`/dev/hvc${number}`, "");
    for (const number of [0, 1, 2])
      files.put(`/sys/bus/xen/devices/vif-${number}/net/eth${number}/address`, "");
  }

  #connectXenbus(): FakeXenbus {
    if (this.#questionsAsked && !this.#connected) {
      this.#connected = true;
      return this.bus;
    }
    const bus = this.daemon.connect(this.captured.stubdom);
    this.prepare(bus, ++this.#connections);
    return bus;
  }

  /** What a descriptor of the kernel's side was opened as. */
  opened(fd: number | null | undefined): string | undefined {
    return this.#others.get(fd ?? -1);
  }

  #other(what: string): number {
    const fd = firstOther + this.#others.size;
    this.#others.set(fd, what);
    return fd;
  }

  #platform(): Platform {
    const { kernel, xenbus, vchans, route, options } = this;
    const pci = this.pci.pieces;
    const isPci = (fd: number) => fd >= FakePciSysfs.eventsDescriptor;
    const isRing = (fd: number) => fd >= 100 && fd < firstOther;
    return fakePlatform({
      clock: this.clock,
      files: this.files,
      vchans: {
        holdDevices: () => vchans.holdDevices(),
        listen: (_, path) => {
          for (const node of ["ring-ref", "event-channel"])
            this.daemon.set(`${path}/${node}`, "9", this.captured.stubdom);
          return vchans.listen();
        },
      },
      descriptors: {
        open: (path) => {
          if (path.startsWith("/sys/bus/pci/")) return pci.descriptors.open(path);
          return path === xenbusDevice ? xenbus.open(path) : this.#other(path);
        },
        seek: (fd, offset) => pci.descriptors.seek(fd, offset),
        close: (fd) => {
          if (route.has(fd)) return route.descriptors.close(fd);
          if (isPci(fd)) return pci.descriptors.close(fd);
          if (xenbus.has(fd)) return xenbus.close(fd);
          if (fd < firstOther) kernel.close(fd);
        },
        read: (fd, into) => {
          if (route.has(fd)) return route.descriptors.read(fd, into);
          if (isPci(fd)) return pci.descriptors.read(fd, into);
          return xenbus.has(fd) ? xenbus.read(fd, into) : kernel.read(fd, into);
        },
        write: (fd, from) => {
          if (route.has(fd)) return route.descriptors.write(fd, from);
          return xenbus.has(fd) ? xenbus.write(fd, from) : kernel.write(fd, from);
        },
        onReadable: (fd, handler) => {
          if (route.has(fd)) return route.descriptors.onReadable(fd, handler);
          if (isPci(fd)) return pci.descriptors.onReadable(fd, handler);
          if (isRing(fd)) return vchans.descriptors.onReadable(fd, handler);
          if (xenbus.has(fd)) return xenbus.onReadable(fd, handler);
          if (fd < firstOther) kernel.onReadable(fd, handler);
        },
        onWritable: (fd, ready) => {
          if (fd < 100) kernel.onWritable(fd, ready);
        },
      },
      sockets: {
        ...kernel.sockets,
        ...route.sockets,
        listenUnix: (path) => this.#other(path),
        connectUnix: () => {
          const [ours, theirs] = kernel.pair();
          const stream = new DescriptorStream(this.platform.descriptors, theirs, "toolstack's");
          this.sessions.push(new FakeQemuMonitor(stream, options));
          return ours;
        },
        terminalRaw() {},
        kernelEvents: () => pci.sockets.kernelEvents(),
      },
      storage: {
        openNoFollow: (path) => this.#other(path),
        deviceNumber: () => ({ major: 202, minor: 0 }),
      },
      processes: {
        spawn: (spawned) => this.#spawn(spawned),
        executedAt: () => this.clock.now(),
        kill: (_, signal) => {
          this.killed.push(signal);
          if (options.immortal !== true) this.die({ signal });
        },
        yieldWakeUps: (pid) => void this.calmed.push(pid),
        reap: () => this.#ended.shift() ?? null,
        onSignals: (_, deliver) => {
          this.#deliver = deliver;
        },
        powerOff: (how) => void this.poweredOff.push(how),
        endWithin: (seconds) => void this.deadlines.push(seconds),
        crashAlong: (domid) => void this.crashesAlong.push(domid),
      },
    });
  }

  #spawn(spawned: SpawnOptions): number {
    this.spawned.push(spawned);
    // Later it would be QEMU's to say what the device's name stands for.
    if (!this.vchans.held) throw new Error("QEMU is started before the way to xenstored is held");
    const { refused } = this.options;
    if (refused !== undefined) throw new SystemError(refused, "spawn", decodeText(argument(spawned, 0)));
    const [, output, , monitor] = spawned.descriptors;
    this.#output = this.kernel.inherit(output ?? -1);
    const stream = new DescriptorStream(
      this.platform.descriptors,
      this.kernel.inherit(monitor ?? -1),
      "QEMU's monitor",
    );
    this.#monitorStream = stream;
    this.#alive = true;
    this.monitor = new FakeQemuMonitor(stream, this.options);
    return qemuPid;
  }
}

/** Argument n of what was spawned, as bytes. */
export function argument({ argv }: SpawnOptions, n: number): Uint8Array {
  const value = argv[n] ?? "";
  return typeof value === "string" ? encodeText(value) : value;
}
