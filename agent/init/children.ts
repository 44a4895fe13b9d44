import type { ExitStatus, Processes } from "../platform/port.ts";

/**
 * PID 1's children: every ended process is reaped, ours or an orphan, and whoever waits for it is told.
 */
export class Children {
  readonly #waiting = new Map<number, (status: ExitStatus) => void>();

  constructor(private readonly processes: Processes) {}

  /** Calls `ended` once, when `pid` has ended. Register before returning to the event loop. */
  onExit(pid: number, ended: (status: ExitStatus) => void): void {
    this.#waiting.set(pid, ended);
  }

  /** To be called on SIGCHLD; one signal may stand for many children. */
  reapAll(): void {
    for (;;) {
      const status = this.processes.reap();
      if (status === null) return;
      const ended = this.#waiting.get(status.pid);
      this.#waiting.delete(status.pid);
      ended?.(status);
    }
  }
}
