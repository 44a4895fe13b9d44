/**
 * An emulated Xen host: unmodified Xen and a Debian dom0 in QEMU, without virtualisation hardware and without
 * root rights. Several may run side by side; each keeps to a directory of its own.
 *
 *     const host = await LabHost.start({ dom0: "trixie" });
 *     await host.push("dist/stubdom-linux-kernel", "/root/kernel");
 *     console.log((await host.run("xl list")).stdout);
 *     await host.stop();
 */

import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { cached, digest } from "../../bundler/cache.ts";
import { rootContents } from "../../bundler/debian.ts";
import { run } from "../../bundler/exec.ts";
import { progress } from "../../bundler/progress.ts";
import { ControlChannel, type OpenOptions, type RemoteProcess } from "./channel.ts";
import { type Dom0Image, type Dom0Release, dom0Image } from "./dom0-image.ts";
import { sawFault } from "./emulator-faults.ts";
import { EmulatorFault, HostCrash, HostFault, HostStall, LabError } from "./errors.ts";
import { type MachineOptions, machineArguments } from "./machine.ts";
import { openMonitor } from "./monitor.ts";
import { PATIENCE } from "./patience.ts";
import { emulatorTools, type Tools } from "./tools.ts";
import { withTimeout, XenHost } from "./xen-host.ts";

export interface HostOptions extends MachineOptions {
  readonly dom0?: Dom0Release;
  /** The release whose QEMU is the machine; by default dom0's own, in which its Xen runs any guest ({@link emulatorTools}). */
  readonly emulator?: Dom0Release;
  /**
   * Go on from the state of a host that had just booted, saved once in the cache, instead of booting: 5 s, not 25. For a
   * machine with `qemuArgs`, which saved states are not made for, nothing changes.
   */
  readonly saved?: boolean;
  /** Where logs go; by default a new directory that `stop` removes unless the host failed. */
  readonly directory?: string;
  /** Seconds, {@link PATIENCE} times, until dom0 must answer. */
  readonly bootTimeout?: number;
  /** Gets each line of the console of Xen and dom0. */
  readonly onConsole?: (line: string) => void;
}

/** What QEMU tells of saving a machine (qapi/migration.json), as far as it is asked here. */
interface Migration {
  readonly status: string;
  readonly "error-desc"?: string;
}

type Environment = Readonly<Record<string, string>>;

/** Files of a running host's directory. */
const CONSOLE = "console.log";
const MONITOR = "monitor.sock";
/** Files of a saved host: dom0's disk, over the image that all share, and the machine's state. */
const SAVED_DISK = "disk.qcow2";
const SAVED_STATE = "state";

const SECOND = 1000;
const BOOT_TIMEOUT = 300;
/** Milliseconds until a saved machine is loaded. */
const LOAD_TIMEOUT = 60 * PATIENCE * SECOND;
/** dom0 that runs commands and is silent for so long is asked for a sign of life; twice as long is a stall. */
const SILENCE = 60 * SECOND;
/** Lines of Xen or dom0 that mean the end, and whether they point to the emulated processor. */
const FATAL: readonly (readonly [RegExp, typeof EmulatorFault | typeof HostCrash])[] = [
  [/FATAL PAGE FAULT|FATAL TRAP|Unrecoverable|DOUBLE FAULT/, EmulatorFault],
  [/Hardware Dom0 crashed|Panic on CPU|Kernel panic - not syncing|Entering ACPI S5 state/, HostCrash],
];
/** Xen's console carries what guests say to it, too. */
const OF_A_GUEST = /^\(d\d+/;
/** A guest that dies like this was killed by the emulator; the host lives on. */
const GUEST_FAULT = /Triple fault - invoking HVM shutdown|unexpected VMEXIT|vmexit failure/i;

/** Directories of hosts that run, which go with this process. */
const temporary = new Set<string>();
process.once("exit", () => {
  for (const directory of temporary) rmSync(directory, { recursive: true, force: true });
});

export class LabHost extends XenHost {
  /** Logs and sockets of this host. */
  readonly directory: string;
  /** Console of Xen and dom0. */
  override readonly log: string;
  /** From start to the first answer of dom0, in milliseconds. */
  bootTime = 0;
  readonly release: Dom0Release;
  readonly #ownDirectory: boolean;
  readonly #qemu: ChildProcess;
  readonly #qemuEnded: Promise<string>;
  readonly #onConsole: ((line: string) => void) | undefined;
  #channel: ControlChannel | undefined;
  #fault: HostFault | undefined;
  #stopping = false;
  #watchdog: NodeJS.Timeout | undefined;
  #logRead = 0;
  #logRest = "";
  readonly #guestFaults: string[] = [];

  private constructor(options: HostOptions, directory: string, command: readonly string[], env: Environment) {
    super();
    this.release = options.dom0 ?? "trixie";
    this.directory = directory;
    this.#ownDirectory = options.directory === undefined;
    this.log = join(directory, CONSOLE);
    this.#onConsole = options.onConsole;
    writeFileSync(this.log, "");
    // QEMU must not outlive us, however we end.
    const [program = "", ...args] = ["setpriv", "--pdeathsig", "KILL", ...command];
    const errors = openSync(join(directory, "qemu.log"), "w");
    this.#qemu = spawn(program, args, {
      stdio: ["ignore", errors, errors],
      env: { ...process.env, ...env },
      cwd: directory,
    });
    closeSync(errors);
    this.#qemuEnded = new Promise((resolve) => {
      this.#qemu.once("error", (error) => resolve(error.message));
      this.#qemu.once("exit", (code, signal) => resolve(`exit status ${code ?? signal}`));
    });
    void this.#qemuEnded.then((status) => {
      this.#pollConsole();
      if (this.#stopping) return;
      const said = readFileSync(join(directory, "qemu.log"), "utf8").trim();
      this.#fail(new HostCrash(`the emulated host ended: QEMU ${status}\n${said}`, this.log));
    });
    this.#watchdog = setInterval(() => this.#watch(), SECOND / 2);
  }

  /** Starts a host; resolves when dom0 runs commands. */
  static async start(options: HostOptions = {}): Promise<LabHost> {
    const started = Date.now();
    const release = options.dom0 ?? "trixie";
    const [tools, image] = [await emulatorTools(options.emulator ?? release), await dom0Image(release)];
    // A saved state fits the same machine only; one that exists for one test's sake is not worth saving.
    const common = options.saved === true && options.qemuArgs === undefined;
    const saved = common ? await savedHost(options, tools, image) : undefined;
    const host = await LabHost.#launch(options, tools, image, saved);
    host.bootTime = Date.now() - started;
    return host;
  }

  /** Boots a host and leaves its state, just booted, in a directory. */
  static async save(
    options: HostOptions,
    tools: Tools,
    image: Dom0Image,
    directory: string,
    log: string,
  ): Promise<void> {
    const disk = join(directory, SAVED_DISK);
    const create = ["create", "-q", "-f", "qcow2", "-F", "raw", "-b", image.disk, disk];
    await run(tools.command("/usr/bin/qemu-img", ...create), { log });
    // Its sockets elsewhere: their names must be short.
    const { directory: _, ...machine } = options;
    const host = await LabHost.#launch(machine, tools, image, undefined, disk);
    try {
      await host.run("sync; sleep 2");
      host.#stopping = true;
      // dom0's end sees the lab go, ends what it had for it and waits for the next one; then it is quiet.
      host.#channel?.close(new LabError("the host is being saved"));
      await sleep(5 * SECOND);
      const monitor = await openMonitor(
        await host.#reach(join(host.directory, MONITOR), Date.now() + LOAD_TIMEOUT),
      );
      await monitor.execute("stop");
      const state = join(directory, SAVED_STATE);
      await monitor.execute("migrate", { uri: tools.saveTo(state) });
      for (;;) {
        const { status, "error-desc": reason } = (await monitor.execute("query-migrate")) as Migration;
        if (status === "completed") break;
        if (status === "failed")
          throw new LabError(`QEMU cannot save the state of the emulated host to ${state}: ${reason}`);
        await sleep(SECOND / 4);
      }
      await monitor.execute("quit");
      await host.#qemuEnded;
      monitor.close();
    } finally {
      await host.stop();
    }
  }

  static async #launch(
    options: HostOptions,
    tools: Tools,
    image: Dom0Image,
    saved: string | undefined,
    keepDisk?: string,
  ): Promise<LabHost> {
    const directory = options.directory ?? mkdtempSync(join(tmpdir(), "stubdom-lab-"));
    if (options.directory === undefined) temporary.add(directory);
    const control = join(directory, "control.sock");
    const qcow2 = keepDisk ?? (saved === undefined ? undefined : join(saved, SAVED_DISK));
    const files = {
      console: join(directory, CONSOLE),
      control,
      disk:
        qcow2 === undefined
          ? ({ file: image.disk, format: "raw" } as const)
          : ({ file: qcow2, format: "qcow2" } as const),
      keep: keepDisk !== undefined,
    };
    const args = machineArguments(options, image, files, tools.suite);
    const monitor = ["-qmp", `unix:${join(directory, MONITOR)},server=on,wait=off`];
    const incoming = saved === undefined ? [] : ["-incoming", tools.loadFrom(join(saved, SAVED_STATE))];
    const command = tools.qemu(...args, ...monitor, ...incoming);
    const host = new LabHost(options, directory, command, tools.environment);
    try {
      if (saved !== undefined) await host.#resume();
      await host.#connect(control, (options.bootTimeout ?? BOOT_TIMEOUT) * PATIENCE * SECOND);
      if (saved !== undefined) await host.run(["python3", "-c", awaken(Date.now() / SECOND)]);
    } catch (error) {
      // Its message names the console's file, which stays then.
      if (error instanceof HostFault) host.#fault ??= error;
      await host.stop();
      throw error;
    }
    return host;
  }

  /** Starts a command in dom0 and leaves its streams to the caller. */
  override spawn(command: string | readonly string[], options: OpenOptions = {}): RemoteProcess {
    const argv = typeof command === "string" ? ["/bin/sh", "-c", command] : command;
    if (this.#channel === undefined) throw this.#fault ?? new HostCrash("the host is not up", this.log);
    const { cwd, env, pty } = options;
    return this.#channel.open(argv, {
      ...(cwd === undefined ? {} : { cwd }),
      ...(env === undefined ? {} : { env }),
      ...(pty === undefined ? {} : { pty }),
    });
  }

  protected override get fault(): Error | undefined {
    return this.#fault;
  }

  /** Lines of Xen's log that tell of a guest killed by the emulated processor, since the host started. */
  override get guestFaults(): readonly string[] {
    this.#pollConsole();
    return this.#guestFaults;
  }

  /** Text of the console of Xen and dom0 so far. */
  consoleText(): string {
    return readFileSync(this.log, "utf8");
  }

  /** Ends the host, without ceremony: its disk was never written. May be called twice. */
  override async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#watchdog);
    this.#channel?.close(new HostCrash("the host was stopped", this.log));
    this.#qemu.kill("SIGKILL");
    await this.#qemuEnded;
    temporary.delete(this.directory);
    if (this.#ownDirectory && this.#fault === undefined) {
      rmSync(this.directory, { recursive: true, force: true });
    }
  }

  /** Lets a machine run whose state was saved: it was stopped then, and is now until told otherwise. */
  async #resume(): Promise<void> {
    const path = join(this.directory, MONITOR);
    const monitor = await openMonitor(await this.#reach(path, Date.now() + LOAD_TIMEOUT));
    try {
      const deadline = Date.now() + LOAD_TIMEOUT;
      for (;;) {
        const { status } = (await monitor.execute("query-status")) as { status: string };
        if (status === "paused") break;
        if (status !== "inmigrate" || Date.now() > deadline) {
          throw new HostCrash(`QEMU cannot load the saved state (${status})`, this.log);
        }
        await sleep(50);
      }
      await monitor.execute("cont");
    } finally {
      monitor.close();
    }
  }

  /** A connection to a socket of QEMU's, once it listens there: it makes the file first. */
  async #reach(path: string, deadline: number): Promise<Socket> {
    for (;;) {
      if (this.#fault !== undefined) throw this.#fault;
      const socket = connect(path);
      try {
        await once(socket, "connect");
        return socket;
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException;
        if (code !== "ENOENT" && code !== "ECONNREFUSED") throw error;
      }
      if (Date.now() > deadline) throw new HostStall("QEMU does not start", this.log);
      await sleep(20);
    }
  }

  async #connect(path: string, timeout: number): Promise<void> {
    const deadline = Date.now() + timeout;
    const socket = await this.#reach(path, deadline);
    const channel = new ControlChannel(socket);
    this.#channel = channel;
    const left = Math.max(deadline - Date.now(), 1);
    await withTimeout(channel.ping(), left, () => {
      const seconds = Math.round(timeout / SECOND);
      return new HostStall(
        `dom0 does not answer after ${seconds} s; last words:\n${this.#lastWords()}`,
        this.log,
      );
    });
  }

  #lastWords(): string {
    return this.consoleText().trimEnd().split("\n").slice(-8).join("\n");
  }

  #watch(): void {
    this.#pollConsole();
    const channel = this.#channel;
    if (channel === undefined || !channel.busy) return;
    const silent = Date.now() - channel.lastHeard;
    if (silent > 2 * SILENCE) {
      this.#fail(new HostStall(`dom0 was silent for ${Math.round(silent / SECOND)} s`, this.log));
    } else if (silent > SILENCE) {
      channel.ping().catch(() => {});
    }
  }

  /** Reads what the console got since the last time. The file is QEMU's; there is no pipe that could fill. */
  #pollConsole(): void {
    const data = readFileSync(this.log);
    if (data.length === this.#logRead) return;
    const text = this.#logRest + data.subarray(this.#logRead).toString("latin1");
    this.#logRead = data.length;
    const lines = text.split(/\r*\n/);
    this.#logRest = lines.pop() ?? "";
    for (const line of lines) {
      this.#onConsole?.(line);
      if (OF_A_GUEST.test(line)) continue;
      if (GUEST_FAULT.test(line)) {
        this.#guestFaults.push(line);
        sawFault(line);
      }
      const fatal = FATAL.find(([pattern]) => pattern.test(line));
      if (fatal !== undefined && !this.#stopping) {
        const [, Fault] = fatal;
        if (Fault === EmulatorFault) sawFault(line);
        this.#fail(new Fault(`the emulated host died: ${line}`, this.log));
      }
    }
  }

  #fail(fault: HostFault): void {
    this.#fault ??= fault;
    this.#channel?.close(this.#fault);
  }
}

/** A saved host believes that no time has passed, and would make the same random numbers each time: RNDRESEEDCRNG. */
function awaken(seconds: number): string {
  return `import fcntl, time
time.clock_settime(time.CLOCK_REALTIME, ${seconds})
with open("/dev/urandom", "wb", buffering=0) as random:
    random.write(bytes.fromhex("${randomBytes(64).toString("hex")}"))
    fcntl.ioctl(random, 0x5207)`;
}

/** The directory with the state of a host of this kind that has just booted: from the cache, or made now. */
function savedHost(options: HostOptions, tools: Tools, image: Dom0Image): Promise<string> {
  const release = options.dom0 ?? "trixie";
  const files = { console: "", control: "", disk: { file: image.disk, format: "qcow2" } } as const;
  const machine = machineArguments(options, image, files, tools.suite).join("\0");
  // The emulated TSC ticks as this processor's does, and Xen has measured it.
  const processor = cpus()[0]?.model ?? "";
  return cached(
    `lab-host-${release}`,
    digest({ machine, processor, tools: rootContents(tools.root) }),
    (directory, log) =>
      progress.step(`booting the emulated host once (${release})`, () =>
        LabHost.save({ ...options, dom0: release }, tools, image, directory, log),
      ),
  );
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}
