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
import { existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ControlChannel, type OpenOptions, type RemoteProcess } from "./channel.ts";
import { type Dom0Release, dom0Image } from "./dom0-image.ts";
import { EmulatorFault, HostCrash, type HostFault, HostStall, RemoteFailure, Timeout } from "./errors.ts";
import { labTools } from "./tools.ts";

export interface HostOptions {
  readonly dom0?: Dom0Release;
  /** MiB of the whole machine; only what is used costs memory here. */
  readonly memory?: number;
  /** MiB of dom0. */
  readonly dom0Memory?: number;
  readonly vcpus?: number;
  /** Further arguments for QEMU: devices, netdevs. */
  readonly qemuArgs?: readonly string[];
  /** Further words for Xen's and for dom0's kernel command line. */
  readonly xenArgs?: readonly string[];
  readonly kernelArgs?: readonly string[];
  /** Emulated time follows executed instructions: slower, single-threaded, the same figures each run. */
  readonly deterministic?: boolean;
  /** Where logs go; by default a new directory that `stop` removes unless the host failed. */
  readonly directory?: string;
  /** Seconds until dom0 must answer. */
  readonly bootTimeout?: number;
  /** Gets each line of the console of Xen and dom0. */
  readonly onConsole?: (line: string) => void;
}

export interface RunOptions extends OpenOptions {
  /** Seconds; the command is killed when they are over. */
  readonly timeout?: number;
  /** Called for each line, of standard output and error, without its end. */
  readonly onLine?: (line: string) => void;
  readonly input?: string | Uint8Array;
  /** Statuses that are no failure; by default 0 alone. `"any"`: the caller looks at the status. */
  readonly accept?: readonly number[] | "any";
}

export interface RunResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const SECOND = 1000;
const DEFAULT_TIMEOUT = 120;
const BOOT_TIMEOUT = 300;
/** dom0 that runs commands and is silent for so long is asked for a sign of life; twice as long is a stall. */
const SILENCE = 60 * SECOND;
/** Lines of Xen or dom0 that mean the end, and whether they point to the emulated processor. */
const FATAL: readonly (readonly [RegExp, typeof EmulatorFault | typeof HostCrash])[] = [
  [/FATAL PAGE FAULT|FATAL TRAP|Unrecoverable|DOUBLE FAULT/, EmulatorFault],
  [/Hardware Dom0 crashed|Panic on CPU|Kernel panic - not syncing|Entering ACPI S5 state/, HostCrash],
];
/** A guest that dies like this was killed by the emulator; the host lives on. */
const GUEST_FAULT = /Triple fault - invoking HVM shutdown|unexpected VMEXIT|vmexit failure/i;

export class LabHost {
  /** Logs and sockets of this host. */
  readonly directory: string;
  /** Console of Xen and dom0. */
  readonly log: string;
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

  private constructor(
    options: HostOptions,
    command: readonly string[],
    environment: Record<string, string>,
    directory: string,
  ) {
    this.release = options.dom0 ?? "trixie";
    this.directory = directory;
    this.#ownDirectory = options.directory === undefined;
    this.log = join(directory, "console.log");
    this.#onConsole = options.onConsole;
    writeFileSync(this.log, "");
    // QEMU must not outlive us, however we end.
    const [program = "", ...args] = ["setpriv", "--pdeathsig", "KILL", ...command];
    const errors = openSync(join(directory, "qemu.log"), "w");
    this.#qemu = spawn(program, args, {
      stdio: ["ignore", errors, errors],
      env: { ...process.env, ...environment },
      cwd: directory,
    });
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

  /** Boots a host; resolves when dom0 runs commands. */
  static async start(options: HostOptions = {}): Promise<LabHost> {
    const started = Date.now();
    const release = options.dom0 ?? "trixie";
    const [tools, image] = [await labTools(), await dom0Image(release)];
    const directory = options.directory ?? mkdtempSync(join(tmpdir(), "stubdom-lab-"));
    const channelPath = join(directory, "control.sock");
    const xenArgs = [
      `dom0_mem=${options.dom0Memory ?? 1024}M,max:${options.dom0Memory ?? 1024}M`,
      "dom0_max_vcpus=1 com1=115200,8n1 console=com1 loglvl=all guest_loglvl=all sched=credit noreboot",
      "bootscrub=0", // touching all memory takes seconds here, and real memory of this machine
      ...(options.xenArgs ?? []),
    ].join(" ");
    const kernelArgs = ["console=hvc0 panic=1", ...(options.kernelArgs ?? [])].join(" ");
    const command = tools.qemu(
      ...["-accel", options.deterministic ? "tcg,thread=single" : "tcg,thread=multi"],
      ...(options.deterministic ? ["-icount", "shift=0,sleep=off"] : []),
      // With SMAP or SMEP dom0 dies at boot under QEMU's emulated SVM.
      ...["-machine", "q35", "-cpu", "max,-smap,-smep", "-smp", String(options.vcpus ?? 2)],
      ...["-m", `${options.memory ?? 6144}M`, "-nodefaults", "-display", "none", "-no-reboot"],
      ...["-serial", `file:${join(directory, "console.log")}`],
      ...[
        "-kernel",
        image.xen,
        "-initrd",
        `${image.kernel} ${kernelArgs},${image.initrd}`,
        "-append",
        xenArgs,
      ],
      ...["-drive", `file=${image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe`],
      ...[
        "-device",
        "virtio-serial-pci",
        "-chardev",
        `socket,id=control,path=${channelPath},server=on,wait=off`,
      ],
      ...["-device", "virtserialport,chardev=control,name=lab.control"],
      ...(options.qemuArgs ?? []),
    );
    const host = new LabHost(options, command, tools.environment, directory);
    try {
      await host.#connect(channelPath, (options.bootTimeout ?? BOOT_TIMEOUT) * SECOND);
    } catch (error) {
      await host.stop();
      throw error;
    }
    host.bootTime = Date.now() - started;
    return host;
  }

  /**
   * Runs a command in dom0, a string by `sh -c`. Rejects with {@link RemoteFailure} on another status than 0
   * (see `accept`), with {@link Timeout}, or with a {@link HostFault} if the host ends meanwhile.
   */
  async run(command: string | readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const process = this.spawn(command, options);
    const output = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      const lines = lineSplitter(options.onLine ?? (() => {}));
      const decoder = new TextDecoder();
      process.on(name, (chunk: Buffer) => {
        const text = decoder.decode(chunk, { stream: true });
        output[name] += text;
        lines(text);
      });
    }
    process.end(options.input === undefined ? undefined : Buffer.from(options.input));
    const seconds = options.timeout ?? DEFAULT_TIMEOUT;
    const words = typeof command === "string" ? command : command.join(" ");
    const status = await withTimeout(process.exited, seconds * SECOND, () => {
      process.kill(9);
      const said = `${output.stdout}${output.stderr}`.trimEnd().split("\n").slice(-10).join("\n");
      return this.#fault ?? new Timeout(`in dom0: ${words}: not done after ${seconds} s\n${said}`);
    });
    const accept = options.accept ?? [0];
    if (accept !== "any" && !accept.includes(status)) {
      throw new RemoteFailure(words, status, output.stdout, output.stderr);
    }
    return { status, ...output };
  }

  /** Starts a command in dom0 and leaves its streams to the caller. */
  spawn(command: string | readonly string[], options: OpenOptions = {}): RemoteProcess {
    const argv = typeof command === "string" ? ["/bin/sh", "-c", command] : command;
    if (this.#channel === undefined) throw this.#fault ?? new HostCrash("the host is not up", this.log);
    const { cwd, env, pty } = options;
    return this.#channel.open(argv, {
      ...(cwd === undefined ? {} : { cwd }),
      ...(env === undefined ? {} : { env }),
      ...(pty === undefined ? {} : { pty }),
    });
  }

  /** Copies a file, or bytes, into dom0. Directories on the way are made. */
  async push(source: string | Uint8Array, remote: string): Promise<void> {
    const data = typeof source === "string" ? readFileSync(source) : source;
    const script = 'mkdir -p "$(dirname "$1")" && cat > "$1"';
    await this.run(["/bin/sh", "-c", script, "push", remote], { input: data, timeout: 300 });
  }

  /** A file of dom0. */
  async pull(remote: string): Promise<Buffer> {
    const process = this.spawn(["/bin/cat", remote]);
    const chunks: Buffer[] = [];
    let errors = "";
    process.on("stdout", (chunk) => chunks.push(Buffer.from(chunk)));
    process.on("stderr", (chunk) => {
      errors += chunk.toString();
    });
    process.end();
    const status = await withTimeout(process.exited, 300 * SECOND, () => new Timeout(`pull ${remote}`));
    if (status !== 0) throw new RemoteFailure(`cat ${remote}`, status, "", errors);
    return Buffer.concat(chunks);
  }

  /** Lines of Xen's log that tell of a guest killed by the emulated processor, since the host started. */
  get guestFaults(): readonly string[] {
    this.#pollConsole();
    return this.#guestFaults;
  }

  /** Text of the console of Xen and dom0 so far. */
  consoleText(): string {
    return readFileSync(this.log, "utf8");
  }

  /** Ends the host, without ceremony: its disk was never written. May be called twice. */
  async stop(): Promise<void> {
    this.#stopping = true;
    clearInterval(this.#watchdog);
    this.#channel?.close(new HostCrash("the host was stopped", this.log));
    this.#qemu.kill("SIGKILL");
    await this.#qemuEnded;
    if (this.#ownDirectory && this.#fault === undefined) {
      rmSync(this.directory, { recursive: true, force: true });
    }
  }

  async #connect(path: string, timeout: number): Promise<void> {
    const deadline = Date.now() + timeout;
    while (!existsSync(path)) {
      if (this.#fault !== undefined) throw this.#fault;
      if (Date.now() > deadline) throw new HostStall("QEMU does not start", this.log);
      await sleep(20);
    }
    const socket = await new Promise<Socket>((resolve, reject) => {
      const opened = connect(path, () => resolve(opened));
      opened.once("error", reject);
    });
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
      if (GUEST_FAULT.test(line)) this.#guestFaults.push(line);
      const fatal = FATAL.find(([pattern]) => pattern.test(line));
      if (fatal !== undefined && !this.#stopping) {
        const [, Fault] = fatal;
        this.#fail(new Fault(`the emulated host died: ${line}`, this.log));
      }
    }
  }

  #fail(fault: HostFault): void {
    this.#fault ??= fault;
    this.#channel?.close(this.#fault);
  }
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** `work`, or a rejection with what `late` gives when it takes too long. */
export async function withTimeout<T>(work: Promise<T>, milliseconds: number, late: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), milliseconds);
  });
  try {
    return await Promise.race([work, expired]);
  } finally {
    clearTimeout(timer);
  }
}

/** Calls back for each whole line of a text that comes in pieces. */
export function lineSplitter(onLine: (line: string) => void): (text: string) => void {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  };
}
