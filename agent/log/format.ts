/** One log line as pino hands it over. `time` is milliseconds since the kernel booted. */
export interface LogRecord {
  readonly time: number;
  readonly level: LogLevel;
  readonly msg: string;
  /** The machine-readable part; nested values are printed as JSON. */
  readonly [field: string]: unknown;
}

export const logLevels = ["debug", "info", "warn", "error"] as const;
export type LogLevel = (typeof logLevels)[number];

/** Longest line, in characters; what is longer is cut, so that no peer fills dom0's log with one event. */
const longestLine = 2000;

// C0 and C1 controls and the Unicode line separators: untrusted text must not forge a line of its own or
// drive the terminal of whoever reads the log.
const control = /[\p{Cc}\u2028\u2029]/gu;

/** `text` with every control character shown as its escape. */
export function printable(text: string): string {
  return text.replace(control, (char) => {
    const code = char.charCodeAt(0);
    return code < 0x100 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16)}`;
  });
}

// JSON's own text has the C0 controls as escapes, and no other.
const controlOfJson = /[\u007f-\u009f\u2028\u2029]/g;

/** `value` as JSON in which every control character is an escape, but the ends of lines that `indent` makes. */
export function printableJson(value: unknown, indent = 0): string {
  return JSON.stringify(value, null, indent).replace(
    controlOfJson,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** `[    1.234] warn  frontends: vbd 768 ... (state=3 backend=/local/...)` */
export function formatHuman({ time, level, msg, ...fields }: LogRecord): string {
  const seconds = (time / 1000).toFixed(3).padStart(9);
  const pairs = Object.entries(fields).map(([key, value]) => {
    return `${key}=${typeof value === "string" ? value : JSON.stringify(value)}`;
  });
  const tail = pairs.length > 0 ? ` (${pairs.join(" ")})` : "";
  return cut(printable(`[${seconds}] ${level.padEnd(5)} ${msg}${tail}`));
}

export function formatJson(record: LogRecord): string {
  const line = printableJson(record);
  if (line.length <= longestLine) return line;
  const { time, level, msg } = record;
  return printableJson({ time, level, msg: cut(msg), cut: true });
}

function cut(line: string): string {
  return line.length > longestLine ? `${line.slice(0, longestLine)}... (${line.length} characters)` : line;
}
