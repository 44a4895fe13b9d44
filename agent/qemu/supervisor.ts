import type { Logger } from "../log/logger.ts";
import type { ExitStatus, Platform } from "../platform/port.ts";
import { DescriptorStream, SocketStream } from "../platform/stream.ts";
import { QmpClient, type QmpEvent } from "../qmp/client.ts";
import { type QmpError, QmpTimeout } from "../qmp/errors.ts";
import { QemuEnded, QemuMonitorBroken, QemuUnresponsive } from "./errors.ts";
import { QemuOutput } from "./output.ts";
import type { QemuProcess } from "./spawn.ts";

export interface QemuHandlers {
  /** Called for each event on the agent's monitor. */
  readonly onEvent?: (event: QmpEvent) => void;
  /** Called once when the agent's monitor breaks although QEMU, which had answered, lives on. */
  readonly onMonitorBroken?: (error: QemuMonitorBroken) => void;
}

/** A monitor, or a pipe, also breaks because QEMU dies, which is known so much later. */
const deathNotice = 1_000;

/**
 * One QEMU from its start to its end: a child whose output goes to the log, whose monitor the agent is connected to,
 * and of whose end exactly one {@link QemuEnded} tells.
 *
 * Nothing here polls: it is driven by the pipe, the monitor, timers, and by PID 1's one reaper, which must
 * call {@link exited}.
 */
export class QemuSupervisor {
  readonly qmp: QmpClient;
  /** Resolves when QEMU has ended and its last lines are logged. Never rejects. */
  readonly ended: Promise<QemuEnded>;

  readonly #output: QemuOutput;
  readonly #outputDone: Promise<void>;
  readonly #outputStream: DescriptorStream;
  #resolveEnded: (ended: QemuEnded) => void = () => {};
  #state: "running" | "stopping" | "ended" = "running";
  #answered = false;

  /** Owns the descriptors of `child` from now on. */
  constructor(
    private readonly platform: Platform,
    private readonly log: Logger,
    private readonly child: QemuProcess,
    private readonly handlers: QemuHandlers = {},
  ) {
    this.ended = new Promise((resolve) => {
      this.#resolveEnded = resolve;
    });
    this.#output = new QemuOutput(platform.clock, log);
    this.#outputStream = new DescriptorStream(platform.descriptors, child.output, "QEMU's output");
    this.#outputDone = this.#forward();
    const monitor = new SocketStream(platform, child.monitor, "QEMU's monitor");
    this.qmp = new QmpClient(monitor, {
      clock: platform.clock,
      log,
      ...(handlers.onEvent && { onEvent: handlers.onEvent }),
      onClosed: (reason) => void this.#monitorClosed(reason),
    });
  }

  get pid(): number {
    return this.child.pid;
  }

  /**
   * Waits until QEMU takes commands.
   *
   * @param late called once when that takes longer than `lateAfter`, to tell somebody
   * @throws QemuUnresponsive after `milliseconds`, QemuMonitorBroken; QEMU still runs then. QemuEnded when it
   *   ended before.
   */
  async ready(milliseconds: number, lateAfter: number, late: () => void): Promise<void> {
    const notice = this.platform.clock.setTimer(lateAfter, late);
    try {
      await this.qmp.handshake(milliseconds);
      this.#answered = true;
    } catch (error) {
      if (error instanceof QmpTimeout) throw new QemuUnresponsive(milliseconds, this.#output.lastLines);
      // The monitor breaks when QEMU dies, and its exit says more than that.
      const ended = await this.endedSoon();
      if (ended !== null) throw ended;
      const reason = error instanceof Error ? error : new Error(String(error));
      throw new QemuMonitorBroken(reason, "no QEMU of ours does that; build the image again");
    } finally {
      notice.cancel();
    }
  }

  /** To be called when the child has been reaped. */
  exited(status: ExitStatus): void {
    if (this.#state === "ended") return;
    const expected = this.#state === "stopping";
    this.#state = "ended";
    void this.#finish(status, expected);
  }

  /**
   * Ends QEMU by SIGKILL. Idempotent; every call resolves when it has ended.
   *
   * One that ends by itself, by QMP's `quit` or SIGTERM, powers its guest off if the guest asks it for something meanwhile
   * (`handle_ioreq`, hw/xen/xen-hvm-common.c), which to the toolstack is a guest that has ended well, and else has Xen answer
   * for devices that are gone. A guest whose QEMU was killed waits for its answer. Nothing is lost by it: what QEMU has
   * written is the kernel's.
   */
  async stop(): Promise<QemuEnded> {
    if (this.#state === "running") {
      this.#state = "stopping";
      try {
        this.platform.processes.kill(this.child.pid, "SIGKILL");
      } catch (error) {
        // ESRCH: it has ended and is about to be reaped.
        this.log.debug({ error: String(error) }, `SIGKILL to QEMU: ${String(error)}`);
      }
    }
    return this.ended;
  }

  /** To be asked when QEMU has let go of something: how it has ended, or `null` where it lives on. */
  endedSoon(): Promise<QemuEnded | null> {
    return new Promise((resolve) => {
      const timer = this.platform.clock.setTimer(deathNotice, () => resolve(null));
      void this.ended.then((ended) => {
        timer.cancel();
        resolve(ended);
      });
    });
  }

  async #monitorClosed(reason: QmpError): Promise<void> {
    if (!this.#answered || this.#state !== "running") return;
    await this.endedSoon();
    if (this.#state !== "running") return;
    const consequence =
      "the guest runs on, but cannot be saved or migrated; shut it down and start it again, and find out what took over QEMU";
    this.handlers.onMonitorBroken?.(new QemuMonitorBroken(reason, consequence));
  }

  async #forward(): Promise<void> {
    try {
      for (;;) {
        const chunk = await this.#outputStream.read();
        if (chunk === null) break;
        this.#output.push(chunk);
      }
    } catch (error) {
      this.log.warn({ error: String(error) }, `QEMU's output is lost from here on: ${String(error)}`);
    }
    this.#outputStream.close();
    this.#output.end();
  }

  async #finish(status: ExitStatus, expected: boolean): Promise<void> {
    const ranFor = this.platform.clock.now() - this.child.began;
    // What it wrote last is still in the pipe, which ends when its last descriptor is closed; a process
    // that inherited one must not delay the news.
    const enough = this.platform.clock.setTimer(100, () => this.#outputStream.close());
    await this.#outputDone;
    enough.cancel();
    this.qmp.close();
    this.#resolveEnded(new QemuEnded(status, ranFor, [...this.#output.lastLines], expected));
  }
}
