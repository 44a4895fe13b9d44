import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/** A network namespace that lives as long as a process in it; nothing of it is seen outside. */
export class Namespace {
  private constructor(private readonly holder: ChildProcess) {}

  static async create(): Promise<Namespace> {
    if (process.getuid?.() !== 0)
      throw new Error("network namespaces need root: run the tests of the compiled program as root (sudo)");
    const holder = spawn("unshare", ["--net", "sh", "-c", "echo ready; read end"], {
      stdio: ["pipe", "pipe", "inherit"],
    });
    if (holder.stdout !== null) await once(holder.stdout, "data");
    const namespace = new Namespace(holder);
    namespace.ip("link set lo up");
    return namespace;
  }

  /** What `ip ... netns` calls it. */
  get pid(): string {
    return String(this.holder.pid);
  }

  /** Output of `command` run inside. */
  run(...command: readonly string[]): string {
    return execFileSync("nsenter", [`--net=/proc/${this.pid}/ns/net`, ...command], { encoding: "utf8" });
  }

  ip(command: string): string {
    return this.run("ip", ...command.split(" "));
  }

  spawn(...command: readonly string[]): ChildProcess {
    return spawn("nsenter", [`--net=/proc/${this.pid}/ns/net`, ...command], {
      stdio: ["pipe", "pipe", "inherit"],
    });
  }

  /** Frames that `device` has received so far. */
  received(device: string): number {
    const [link] = JSON.parse(this.run("ip", "-json", "-statistics", "link", "show", "dev", device)) as {
      stats64: { rx: { packets: number } };
    }[];
    if (link === undefined) throw new Error(`no ${device}`);
    return link.stats64.rx.packets;
  }

  async end(): Promise<void> {
    if (this.holder.exitCode !== null) return;
    this.holder.stdin?.end();
    await once(this.holder, "exit");
  }
}

export interface DriverEvent {
  readonly event: string;
  readonly [field: string]: unknown;
}

/** The compiled `driver.ts`, running in a namespace. */
export class Driver {
  readonly events: DriverEvent[] = [];
  readonly #child: ChildProcess;
  #changed: () => void = () => {};

  constructor(program: string, namespace: Namespace, task: object) {
    this.#child = namespace.spawn(program, JSON.stringify(task));
    if (this.#child.stdout === null) throw new Error("no pipe");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      this.events.push(JSON.parse(line));
      this.#changed();
    });
    // "close" and not "exit": what it printed last must have been read before.
    this.#child.on("close", (code) => {
      this.events.push({ event: "exit", code });
      this.#changed();
    });
  }

  tell(command: object): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  /** The first event of that name after the first `after` events, waited for. */
  async event(name: string, after = 0): Promise<DriverEvent> {
    const deadline = Date.now() + 5_000;
    for (;;) {
      const found = this.events.slice(after).find(({ event }) => event === name);
      if (found !== undefined) return found;
      const left = deadline - Date.now();
      if (left <= 0 || this.events.some(({ event }) => event === "exit"))
        throw new Error(`no event "${name}" but ${JSON.stringify(this.events.slice(-10))}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }

  async end(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    this.#child.stdin?.end();
    await once(this.#child, "exit");
  }
}
