import type { Clock } from "../platform/port.ts";
import type { LogLevel } from "./format.ts";
import type { Log } from "./log.ts";

type Options = Parameters<Log["configure"]>[0];

interface Line {
  readonly level: LogLevel;
  readonly fields: object;
  readonly message: string;
}

/**
 * A log that is not there yet: lines wait, with their time. Loading the real one takes longer than a boot has for what
 * it says while all goes well, so that it waits for the first warning or error, or for {@link flush}.
 */
export class HeldLog implements Log {
  readonly #lines: Line[] = [];
  #options: Options | undefined;
  #opening: Promise<void> | undefined;
  #log: Log | undefined;

  constructor(
    private readonly clock: Clock,
    private readonly load: () => Promise<Log>,
  ) {}

  get recent(): readonly string[] {
    return this.#log?.recent ?? [];
  }

  configure(options: Options): void {
    this.#options = options;
    this.#log?.configure(options);
  }

  async flush(): Promise<void> {
    await this.#open();
    await this.#log?.flush();
  }

  debug(fields: object, message: string): void {
    this.#say("debug", fields, message);
  }

  info(fields: object, message: string): void {
    this.#say("info", fields, message);
  }

  warn(fields: object, message: string): void {
    this.#say("warn", fields, message);
    void this.#open();
  }

  error(fields: object, message: string): void {
    this.#say("error", fields, message);
    void this.#open();
  }

  #say(level: LogLevel, fields: object, message: string): void {
    if (this.#log !== undefined) this.#log[level](fields, message);
    else this.#lines.push({ level, fields: { ...fields, time: Math.round(this.clock.now()) }, message });
  }

  #open(): Promise<void> {
    this.#opening ??= this.load().then((log) => {
      if (this.#options !== undefined) log.configure(this.#options);
      this.#log = log;
      for (const { level, fields, message } of this.#lines.splice(0)) log[level](fields, message);
    });
    return this.#opening;
  }
}
