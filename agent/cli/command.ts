import type { Argv } from "yargs";
import { printable } from "../log/format.ts";
import type { Platform } from "../platform/port.ts";

/** One command of the command line: what yargs needs to offer it, and what it does. */
export interface Command {
  /** Name and positional arguments in yargs' notation. */
  readonly usage: string;
  readonly summary: string;
  /** Adds the command's own options and examples. */
  readonly options?: (yargs: Argv) => Argv;
  /** Returns what to print: with `--json` as it is, otherwise through {@link render}. */
  run(platform: Platform, args: Arguments): Promise<unknown>;
  /** Text for a person. */
  render(result: unknown): string;
  /** The process's exit status, where a result can mean failure too; 0 otherwise. */
  exitStatus?(result: unknown): number;
}

/** Commands behind a common first word. */
export interface CommandGroup {
  readonly name: string;
  readonly summary: string;
  readonly commands: readonly Command[];
}

export type Arguments = Readonly<Record<string, unknown>>;

/** Rows with their columns aligned. Much of it is what guests and QEMU say, and goes to root's terminal. */
export function table(given: readonly (readonly string[])[]): string {
  const rows = given.map((row) => row.map(printable));
  const widths: number[] = [];
  for (const row of rows) {
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row.map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i] ?? 0))).join("  "),
    )
    .join("\n");
}

/** Lines `key  value` of an object, nested values as JSON. */
export function fields(result: unknown): string {
  return table(
    Object.entries(result as object).map(([key, value]) => [
      key,
      typeof value === "string" ? value : JSON.stringify(value),
    ]),
  );
}
