/** This machine's own Xen: dom0 is here. For measuring on real hardware; needs root. */

import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { signalGroup } from "../../bundler/exec.ts";
import { DATA, EOF, EXIT, type OpenOptions, RemoteProcess, SIGNAL, STDERR, STDOUT } from "./channel.ts";
import { LabError } from "./errors.ts";
import { XenHost } from "./xen-host.ts";

/** How long output is awaited of a command that has ended, in milliseconds. */
const lastOutput = 500;

export class LocalHost extends XenHost {
  override readonly log = "";
  readonly #running = new Set<RemoteProcess>();

  /** Throws a {@link LabError} where this machine is no dom0 or we may not use it. */
  static start(): LocalHost {
    if (!existsSync("/proc/xen/capabilities")) {
      throw new LabError("this machine is no Xen dom0 (no /proc/xen/capabilities): use --host lab");
    }
    if (process.getuid?.() !== 0) throw new LabError("not root, which xl needs: run this with sudo");
    return new LocalHost();
  }

  override get guestFaults(): readonly string[] {
    return [];
  }

  /** A terminal (`pty`) is not offered here. */
  override spawn(command: string | readonly string[], options: OpenOptions = {}): RemoteProcess {
    const [program = "", ...args] = typeof command === "string" ? ["/bin/sh", "-c", command] : command;
    const child = spawn(program, args, {
      cwd: options.cwd ?? "/",
      env: { ...process.env, ...options.env },
      // A group of its own, which signals then reach whole.
      detached: true,
    });
    const running = new RemoteProcess((type, payload) => {
      if (type === DATA) child.stdin.write(payload);
      else if (type === EOF) child.stdin.end();
      else if (type === SIGNAL) signalGroup(child, payload[0] ?? 15);
    });
    this.#running.add(running);
    // A command may end without having read all that it was given.
    child.stdin.on("error", () => {});
    child.stdout.on("data", (chunk: Buffer) => running.receive(STDOUT, chunk));
    child.stderr.on("data", (chunk: Buffer) => running.receive(STDERR, chunk));
    const ended = (end: object): void => {
      this.#running.delete(running);
      running.receive(EXIT, Buffer.from(JSON.stringify(end)));
    };
    child.once("error", (error) => ended({ error: error.message }));
    // What it leaves behind may hold its pipes for as long as a guest lives, as xl's own process might.
    child.once("exit", () => {
      const patience = setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
      }, lastOutput);
      child.once("close", () => clearTimeout(patience));
    });
    child.once("close", (code, signal) => ended(code === null ? { signal: signalNumber(signal) } : { code }));
    return running;
  }

  override async stop(): Promise<void> {
    for (const running of this.#running) running.kill(15);
  }
}

const signals: Readonly<Record<string, number>> = {
  SIGHUP: 1,
  SIGINT: 2,
  SIGKILL: 9,
  SIGPIPE: 13,
  SIGTERM: 15,
};

function signalNumber(name: NodeJS.Signals | null): number {
  return signals[name ?? ""] ?? 0;
}
