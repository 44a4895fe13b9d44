/** A person's terminal connected to a command in dom0. */

import type { LabHost } from "./host.ts";

/**
 * Runs a command of dom0 on this terminal until it ends; resolves with its exit status. Without a terminal
 * (a pipe, a CI) the command gets standard input as it is.
 */
export async function interact(host: LabHost, argv: readonly string[]): Promise<number> {
  const { stdin, stdout } = process;
  const size = (): { rows: number; columns: number } => ({
    rows: stdout.rows || 24,
    columns: stdout.columns || 80,
  });
  const remote = host.spawn(argv, {
    ...(stdin.isTTY ? { pty: size() } : {}),
    env: { TERM: process.env.TERM ?? "dumb", PS1: "dom0# " },
  });
  remote.on("stdout", (chunk) => stdout.write(chunk));
  remote.on("stderr", (chunk) => process.stderr.write(chunk));
  const resize = (): void => remote.resize(size().rows, size().columns);
  const typed = (data: Buffer): void => remote.write(data);
  const ended = (): void => remote.end();
  if (stdin.isTTY) stdin.setRawMode(true);
  stdin.on("data", typed);
  stdin.on("end", ended);
  stdout.on("resize", resize);
  try {
    return await remote.exited;
  } finally {
    if (stdin.isTTY) stdin.setRawMode(false);
    stdin.off("data", typed);
    stdin.off("end", ended);
    stdout.off("resize", resize);
    stdin.pause();
  }
}

/** A shell in dom0, by a person. */
export function dom0Shell(host: LabHost): Promise<number> {
  return interact(host, ["/bin/bash", "--norc", ...(process.stdin.isTTY ? ["-i"] : [])]);
}
