import { encodeText } from "../bytes/text.ts";
import type { Descriptors } from "../platform/port.ts";
import type { LogSink } from "./log.ts";

/** Most bytes that wait for a console that does not drain. */
const queueLimit = 64 * 1024;

/**
 * Lines to a non-blocking terminal. One that takes no more has lines wait in a bounded queue, and the surplus is dropped and
 * counted: a log that nobody reads must not stop PID 1. Xen's PV console is no such terminal: where its backend reads no more,
 * Linux waits for room in the ring, and the whole domain with it (domU_write_console() in drivers/tty/hvc/hvc_xen.c). From
 * what cannot be helped here, Xen's watchdog saves a domain that is to end: `endWithin`.
 */
export class ConsoleSink implements LogSink {
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  #dropped = 0;
  readonly #drained: (() => void)[] = [];

  constructor(
    private readonly descriptors: Descriptors,
    private readonly fd: number,
  ) {}

  write(line: string): void {
    // A raw terminal needs the carriage return spelled out.
    const bytes = encodeText(`${line}\r\n`);
    if (this.#queued + bytes.length > queueLimit) {
      this.#dropped += 1;
      return;
    }
    this.#queue.push(bytes);
    this.#queued += bytes.length;
    if (this.#queue.length === 1) this.#drain();
  }

  flush(): Promise<void> {
    return new Promise((resolve) => {
      this.#drained.push(resolve);
      if (this.#queue.length === 0) this.#tellDrained();
    });
  }

  #tellDrained(): void {
    for (const resolve of this.#drained.splice(0)) resolve();
  }

  #drain(): void {
    for (;;) {
      const head = this.#queue[0];
      if (head === undefined) break;
      let count: number | null;
      try {
        count = this.descriptors.write(this.fd, head);
      } catch {
        // The console is gone; there is nowhere left to say so.
        this.#queue.length = 0;
        this.#queued = 0;
        break;
      }
      if (count === null) {
        this.descriptors.onWritable(this.fd, () => this.#drain());
        return;
      }
      this.#queued -= count;
      if (count === head.length) this.#queue.shift();
      else this.#queue[0] = head.subarray(count);
    }
    this.descriptors.onWritable(this.fd, null);
    if (this.#dropped > 0) {
      const dropped = this.#dropped;
      this.#dropped = 0;
      this.write(`log: ${dropped} lines dropped, the console did not take them`);
    }
    if (this.#queue.length === 0) this.#tellDrained();
  }
}
