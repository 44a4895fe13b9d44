/** One look at a time; whoever asks during one has one more afterwards. */
export class Looks {
  #looking = false;
  #again = false;

  /** @param look never rejects, and asks for no look itself */
  constructor(private readonly look: () => Promise<void>) {}

  async take(): Promise<void> {
    this.#again = true;
    if (this.#looking) return;
    this.#looking = true;
    while (this.#again) {
      this.#again = false;
      await this.look();
    }
    this.#looking = false;
  }
}
