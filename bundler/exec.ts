/** Child processes of the build: each writes into a log file, whose end is shown when it fails. */

import { type ChildProcess, spawn } from "node:child_process";
import { createWriteStream, mkdirSync } from "node:fs";
import { dirname } from "node:path";
import { createInterface } from "node:readline";
import { finished } from "node:stream/promises";
import type { Step } from "./progress.ts";

const TAIL_LINES = 40;

/** Ended with this process: a step that failed must not leave a compiler running behind a returned prompt. */
const children = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of children) child.kill("SIGKILL");
});

export interface RunOptions {
  /** File that gets the command, its standard output and standard error; appended to. */
  readonly log: string;
  readonly cwd?: string;
  readonly env?: NodeJS.ProcessEnv;
  /** Whose `say` shows the last line of output. */
  readonly step?: Step;
  /** Text for standard input; without it, /dev/null. */
  readonly input?: string;
}

/** A command that failed: the message holds the end of what it said and the log's name. */
export class CommandError extends Error {
  override readonly name = "CommandError";

  constructor(
    readonly command: readonly string[],
    readonly status: string,
    readonly log: string,
    tail: string,
    /** Why the log is not whole. */
    unwritten?: Error,
  ) {
    const whole = unwritten ? `${log} could not be written: ${unwritten.message}` : `the whole log: ${log}`;
    super(`${tail}\n${status}; ${whole}`);
  }
}

/** A command as a log shows it: some carry whole scripts. */
function firstLine(command: readonly string[]): string {
  const [line = "", ...rest] = command.join(" ").split("\n");
  return rest.length === 0 ? line : `${line} ...`;
}

/** Runs a command to its end, also where its log cannot be written; rejects with {@link CommandError} unless it exits with 0. */
export async function run(command: readonly string[], options: RunOptions): Promise<void> {
  const [program, ...rest] = command;
  if (program === undefined) throw new RangeError("run: empty command");
  mkdirSync(dirname(options.log), { recursive: true });
  const log = createWriteStream(options.log, { flags: "a" });
  const unwritten = finished(log).then(
    () => undefined,
    (error: Error) => error,
  );
  const tail: string[] = [];
  const write = (line: string): void => {
    log.write(`${line}\n`);
    tail.push(line);
    if (tail.length > TAIL_LINES) tail.shift();
  };
  write(`+ ${firstLine(command)}`);
  const child = spawn(program, rest, {
    cwd: options.cwd,
    env: options.env ?? process.env,
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
  });
  children.add(child);
  child.stdin?.end(options.input);
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    createInterface({ input: stream }).on("line", (line) => {
      write(line);
      options.step?.say(line.trim());
    });
  }
  const status = await new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) =>
      resolve(code === 0 ? "" : signal ? `killed by ${signal}` : `exit status ${code}`),
    );
  });
  children.delete(child);
  log.end();
  const reason = await unwritten;
  if (status !== "") throw new CommandError(command, status, options.log, tail.join("\n"), reason);
}

/** Runs a short command and gives its standard output; its standard error is part of the error's message. */
export async function capture(
  command: readonly string[],
  options: { readonly cwd?: string } = {},
): Promise<string> {
  const [program, ...rest] = command;
  if (program === undefined) throw new RangeError("capture: empty command");
  const child = spawn(program, rest, { cwd: options.cwd, stdio: ["ignore", "pipe", "pipe"] });
  const out: Buffer[] = [];
  const err: Buffer[] = [];
  child.stdout.on("data", (chunk: Buffer) => out.push(chunk));
  child.stderr.on("data", (chunk: Buffer) => err.push(chunk));
  const status = await new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("close", (code, signal) => resolve(code === 0 ? "" : `exit status ${code ?? signal}`));
  });
  if (status !== "") {
    throw new Error(`${command.join(" ")}: ${status}\n${Buffer.concat(err).toString().trim()}`);
  }
  return Buffer.concat(out).toString();
}

/** All that a child with a group of its own has started; one that has ended is left alone. */
export function signalGroup({ pid, exitCode, signalCode }: ChildProcess, signal: number): void {
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  try {
    process.kill(-pid, signal);
  } catch (error) {
    // It has ended, and nobody has told us yet.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** Removes directories with all that is in them; Node's own way takes minutes for a source tree. */
export async function removeTrees(...directories: readonly string[]): Promise<void> {
  await capture(["rm", "-rf", "--", ...directories]);
}
