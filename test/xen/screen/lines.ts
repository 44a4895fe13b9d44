import { PATIENCE } from "../../../scripts/lab/patience.ts";

/** What one side of a conversation in lines has said, and waiting for more. */
export class Lines {
  readonly seen: string[] = [];
  #taken = 0;
  #changed: () => void = () => {};

  add(line: string): void {
    this.seen.push(line);
    this.#changed();
  }

  /** The next line that `accept` likes, those before it being dropped. Rejects after `milliseconds`, {@link PATIENCE} times. */
  async next(accept: (line: string) => boolean, what: string, milliseconds = 30_000): Promise<string> {
    const patience = milliseconds * PATIENCE;
    const deadline = Date.now() + patience;
    for (;;) {
      for (let line = this.seen[this.#taken]; line !== undefined; line = this.seen[this.#taken]) {
        this.#taken++;
        if (accept(line)) return line;
      }
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`no ${what} within ${patience} ms; last: ${this.seen.slice(-3)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}
