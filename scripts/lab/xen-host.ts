/**
 * A Xen host as the tests and the benchmarks use one: dom0 runs commands. The emulated host is one kind
 * (`host.ts`), this machine's own Xen another (`local.ts`).
 */

import { readFileSync } from "node:fs";
import type { OpenOptions, RemoteProcess } from "./channel.ts";
import { RemoteFailure, Timeout } from "./errors.ts";
import { PATIENCE } from "./patience.ts";

export interface RunOptions extends OpenOptions {
  /** Seconds, {@link PATIENCE} times; the command is killed when they are over. */
  readonly timeout?: number;
  /** Called for each line, of standard output and error, without its end. */
  readonly onLine?: (line: string) => void;
  readonly input?: string | Uint8Array;
  /** Statuses that are no failure; by default 0 alone. `"any"`: the caller looks at the status. */
  readonly accept?: readonly number[] | "any";
}

export interface RunResult {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const SECOND = 1000;
const DEFAULT_TIMEOUT = 120;

export abstract class XenHost {
  /** File with the console of Xen and dom0; empty where there is none. */
  abstract readonly log: string;

  /** Lines of Xen's log that tell of a guest killed by an emulated processor. */
  abstract get guestFaults(): readonly string[];

  /** Starts a command in dom0 and leaves its streams to the caller. */
  abstract spawn(command: string | readonly string[], options?: OpenOptions): RemoteProcess;

  /** Ends what this object has started. May be called twice. */
  abstract stop(): Promise<void>;

  /** Why nothing can be run any more. */
  protected get fault(): Error | undefined {
    return undefined;
  }

  /**
   * Runs a command in dom0, a string by `sh -c`. Rejects with {@link RemoteFailure} on another status than 0
   * (see `accept`), with {@link Timeout}, or with a {@link HostFault} if the host ends meanwhile.
   */
  async run(command: string | readonly string[], options: RunOptions = {}): Promise<RunResult> {
    const process = this.spawn(command, options);
    const output = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      const lines = lineSplitter(options.onLine ?? (() => {}));
      const decoder = new TextDecoder();
      process.on(name, (chunk: Buffer) => {
        const text = decoder.decode(chunk, { stream: true });
        output[name] += text;
        lines(text);
      });
    }
    process.end(options.input === undefined ? undefined : Buffer.from(options.input));
    const seconds = (options.timeout ?? DEFAULT_TIMEOUT) * PATIENCE;
    const words = typeof command === "string" ? command : command.join(" ");
    const status = await withTimeout(process.exited, seconds * SECOND, () => {
      process.kill(9);
      const said = `${output.stdout}${output.stderr}`.trimEnd().split("\n").slice(-10).join("\n");
      return this.fault ?? new Timeout(`in dom0: ${words}: not done after ${seconds} s\n${said}`);
    });
    const accept = options.accept ?? [0];
    if (accept !== "any" && !accept.includes(status)) {
      throw new RemoteFailure(words, status, output.stdout, output.stderr);
    }
    return { status, ...output };
  }

  /** Copies a file, or bytes, into dom0. Directories on the way are made. */
  async push(source: string | Uint8Array, remote: string): Promise<void> {
    const data = typeof source === "string" ? readFileSync(source) : source;
    const script = 'mkdir -p "$(dirname "$1")" && cat > "$1"';
    await this.run(["/bin/sh", "-c", script, "push", remote], { input: data, timeout: 300 });
  }

  /** A file of dom0. */
  async pull(remote: string): Promise<Buffer> {
    const process = this.spawn(["/bin/cat", remote]);
    const chunks: Buffer[] = [];
    let errors = "";
    process.on("stdout", (chunk) => chunks.push(Buffer.from(chunk)));
    process.on("stderr", (chunk) => {
      errors += chunk.toString();
    });
    process.end();
    const status = await withTimeout(
      process.exited,
      300 * PATIENCE * SECOND,
      () => new Timeout(`pull ${remote}`),
    );
    if (status !== 0) throw new RemoteFailure(`cat ${remote}`, status, "", errors);
    return Buffer.concat(chunks);
  }
}

/** `work`, or a rejection with what `late` gives when it takes too long. */
export async function withTimeout<T>(work: Promise<T>, milliseconds: number, late: () => Error): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const expired = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(late()), milliseconds);
  });
  try {
    return await Promise.race([work, expired]);
  } finally {
    clearTimeout(timer);
  }
}

/** Calls back for each whole line of a text that comes in pieces. */
export function lineSplitter(onLine: (line: string) => void): (text: string) => void {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split(/\r?\n/);
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  };
}
