/**
 * What a person sees while long steps run: on a terminal one line that is rewritten, elsewhere (a CI log) a
 * line when a step starts, a sign of life every half minute, and a line when it ends.
 */

const SIGN_OF_LIFE_MS = 30_000;
const REDRAW_MS = 200;

/** One running step, as seen by the work inside it. */
export interface Step {
  /** Replaces what the terminal shows beside the step's name; a CI log shows it with the sign of life. */
  say(text: string): void;
}

interface Running {
  readonly name: string;
  readonly started: number;
  detail: string;
  nextSign: number;
}

/** `75` s -> `1:15`. */
export function clock(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 1000);
  return `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
}

export class Progress {
  readonly #running = new Set<Running>();
  readonly #out: NodeJS.WriteStream;
  #timer: NodeJS.Timeout | undefined;

  constructor(out: NodeJS.WriteStream = process.stderr) {
    this.#out = out;
  }

  /** Runs `work` as a step that is shown; steps may run side by side. The work's error passes through. */
  async step<T>(name: string, work: (step: Step) => Promise<T>): Promise<T> {
    const now = Date.now();
    const running: Running = { name, started: now, detail: "", nextSign: now + SIGN_OF_LIFE_MS };
    this.#running.add(running);
    if (!this.#out.isTTY) this.note(`${name} ...`);
    this.#timer ??= setInterval(() => this.#tick(), REDRAW_MS);
    let ending = "failed after";
    try {
      const result = await work({
        say: (text) => {
          running.detail = text;
        },
      });
      ending = "done in";
      return result;
    } finally {
      this.#running.delete(running);
      if (this.#running.size === 0) {
        clearInterval(this.#timer);
        this.#timer = undefined;
      }
      this.note(`${name}: ${ending} ${clock(Date.now() - running.started)}`);
    }
  }

  /** A line that stays. */
  note(text: string): void {
    this.#out.write(this.#out.isTTY ? `\r\x1b[K${text}\n` : `${text}\n`);
  }

  #tick(): void {
    const now = Date.now();
    if (this.#out.isTTY) {
      const parts = [...this.#running].map((r) => `${r.name} ${clock(now - r.started)} ${r.detail}`.trim());
      this.#out.write(`\r\x1b[K${parts.join(" | ").slice(0, (this.#out.columns || 80) - 1)}`);
      return;
    }
    for (const r of this.#running) {
      if (now < r.nextSign) continue;
      r.nextSign = now + SIGN_OF_LIFE_MS;
      this.note(`${r.name}: ${clock(now - r.started)} ${r.detail}`.trimEnd());
    }
  }
}

/** The one progress display of this process. */
export const progress = new Progress();
