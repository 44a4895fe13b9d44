import type { ExitStatus, Platform, SignalName } from "../platform/port.ts";
import { TransferError } from "../savestate/errors.ts";

/**
 * Runs `xl`, wherever the distribution put it, one command at a time. A signal that is to end this process is
 * only noted: a guest that has been stopped must be made to go on first.
 */
export class Toolstack {
  readonly #program: string;
  #interruption: SignalName | undefined;
  #ended: (status: ExitStatus) => void = () => {};

  constructor(private readonly platform: Platform) {
    const program = ["/usr/sbin/xl", "/sbin/xl", "/usr/bin/xl"].find((path) => platform.files.exists(path));
    if (program === undefined) throw new TransferError("no xl in dom0: this command works by it");
    this.#program = program;
    platform.processes.onSignals(["SIGCHLD", "SIGINT", "SIGTERM", "SIGHUP"], (signal) => {
      if (signal !== "SIGCHLD") this.#interruption = signal;
      for (let status = platform.processes.reap(); status !== null; status = platform.processes.reap()) {
        this.#ended(status);
      }
    });
  }

  /** @throws TransferError */
  throwIfInterrupted(): void {
    if (this.#interruption !== undefined) throw new TransferError(`given up at ${this.#interruption}`);
  }

  async xl(...args: readonly string[]): Promise<void> {
    const ended = new Promise<ExitStatus>((resolve) => {
      this.#ended = resolve;
    });
    this.platform.processes.spawn({
      argv: [this.#program, ...args],
      env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
      descriptors: [null, 1, 2],
    });
    const { code, signal } = await ended;
    if (code !== 0) throw new TransferError(`xl ${args.join(" ")}: exit status ${code ?? signal}`);
  }
}
