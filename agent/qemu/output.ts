import { decodeText } from "../bytes/text.ts";
import { printable } from "../log/format.ts";
import type { Logger } from "../log/logger.ts";
import type { Clock, Timer } from "../platform/port.ts";

/** Bytes of a line that are kept; the rest of it is counted. */
const longestLine = 512;
/** Lines that may come at once, and how many a second after that. */
const burst = 100;
const perSecond = 10;
/** Bytes that may come at once, and how many a second after that: 9 MB a day. */
const burstBytes = 1024 * 1024;
const bytesPerSecond = 100;
/** How often dropped lines are told of, in milliseconds: soon at first, then ever more seldom while it goes on. */
const summaries = { first: 1000, last: 60_000 };
/** Lines kept for the report of QEMU's end. */
const rememberedLines = 5;

/**
 * QEMU's standard output and error on their way to the log.
 *
 * A guest can make QEMU write, and a QEMU that was taken over writes what it likes (XSA-180): so lines are
 * cut, control characters become \xNN, and what comes faster than the log shall grow, or is more than it shall hold, is dropped and counted.
 * Memory is bounded by one line.
 */
export class QemuOutput {
  readonly #line = new Uint8Array(longestLine);
  /** Bytes of the current line, of which the first `longestLine` are in `#line`. */
  #length = 0;
  #credit = burst;
  #byteCredit = burstBytes;
  #creditedAt: number;
  #droppedLines = 0;
  #droppedBytes = 0;
  #summary: Timer | undefined;
  #pause = summaries.first;
  /** When a line was dropped last. */
  #droppedAt = Number.NEGATIVE_INFINITY;
  readonly #last: string[] = [];

  constructor(
    private readonly clock: Clock,
    private readonly log: Logger,
  ) {
    this.#creditedAt = clock.now();
  }

  /** The last few lines, dropped ones included, oldest first. */
  get lastLines(): readonly string[] {
    return this.#last;
  }

  push(bytes: Uint8Array): void {
    for (let start = 0; start < bytes.length; ) {
      const newline = bytes.indexOf(0x0a, start);
      const end = newline < 0 ? bytes.length : newline;
      this.#append(bytes.subarray(start, end));
      if (newline >= 0) this.#endLine();
      start = end + 1;
    }
  }

  /** The stream has ended: logs what is left. */
  end(): void {
    if (this.#length > 0) this.#endLine();
    this.#summarize();
  }

  #append(part: Uint8Array): void {
    if (this.#length < longestLine)
      this.#line.set(part.subarray(0, longestLine - this.#length), this.#length);
    this.#length += part.length;
  }

  #endLine(): void {
    const length = this.#length;
    this.#length = 0;
    if (length === 0) return;
    const text = printable(
      decodeText(this.#line.subarray(0, Math.min(length, longestLine))).replaceAll("\t", " "),
    );
    const line = length > longestLine ? `${text}... (${length} bytes)` : text;
    this.#last.push(line);
    if (this.#last.length > rememberedLines) this.#last.shift();

    this.#earnCredit();
    if (this.#credit >= 1 && this.#byteCredit >= line.length) {
      this.#credit--;
      this.#byteCredit -= line.length;
      this.log.info({ from: "qemu" }, `qemu: ${line}`);
      return;
    }
    // `#creditedAt` is now. A loss after a long time without one is soon told of again.
    if (this.#creditedAt - this.#droppedAt > 2 * summaries.last) this.#pause = summaries.first;
    this.#droppedAt = this.#creditedAt;
    this.#droppedLines++;
    this.#droppedBytes += length;
    this.#summary ??= this.clock.setTimer(this.#pause, () => this.#summarize());
  }

  #earnCredit(): void {
    const now = this.clock.now();
    const seconds = (now - this.#creditedAt) / 1000;
    this.#credit = Math.min(burst, this.#credit + seconds * perSecond);
    this.#byteCredit = Math.min(burstBytes, this.#byteCredit + seconds * bytesPerSecond);
    this.#creditedAt = now;
  }

  #summarize(): void {
    this.#summary?.cancel();
    this.#summary = undefined;
    if (this.#droppedLines === 0) return;
    this.#pause = Math.min(2 * this.#pause, summaries.last);
    const [lines, bytes] = [this.#droppedLines, this.#droppedBytes];
    this.#droppedLines = 0;
    this.#droppedBytes = 0;
    this.log.warn({ from: "qemu", lines, bytes }, `qemu: ${lines} more lines (${bytes} bytes) not logged`);
  }
}
