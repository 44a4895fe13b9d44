import { pino } from "pino/browser";
import type { Clock } from "../platform/port.ts";
import { formatHuman, formatJson, type LogLevel, type LogRecord, logLevels } from "./format.ts";
import type { Logger } from "./logger.ts";

export interface LogSink {
  /** Takes one line without its newline. Must neither block nor throw. */
  write(line: string): void;
  /** Resolves when every line so far has been taken, or will never be; absent where none waits. */
  flush?(): Promise<void>;
}

/** The running log: where lines go, and the newest of them for `stubdom log`. */
export interface Log extends Logger {
  readonly recent: readonly string[];
  configure(options: { level: LogLevel; format: "human" | "json" }): void;
  /** Resolves when every line so far has been taken, or will never be. */
  flush(): Promise<void>;
}

/** Lines kept for `stubdom log`; with lines of at most 2,000 characters this bounds its memory. */
const recentLines = 200;

/** A pino logger that formats its own lines and sends each to `sink`. */
export function createLog(clock: Clock, sink: LogSink): Log {
  const recent: string[] = [];
  let format = formatHuman;
  const write = (entry: object) => {
    const { level, msg = "", ...fields } = entry as { level: number; msg?: string };
    const record: LogRecord = {
      time: Math.round(clock.now()),
      level: logLevels.find((name) => pino.levels.values[name] === level) ?? "info",
      msg,
      ...fields,
    };
    const line = format(record);
    recent.push(line);
    if (recent.length > recentLines) recent.shift();
    sink.write(line);
  };
  const logger = pino({ level: "info", timestamp: false, browser: { asObject: true, write } });
  return {
    recent,
    configure(options) {
      logger.level = options.level;
      format = options.format === "json" ? formatJson : formatHuman;
    },
    flush: () => sink.flush?.() ?? Promise.resolve(),
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
  };
}
