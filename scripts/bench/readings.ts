/** What the guest, dom0's tools and the stub domain print, as figures. Pure. */
import { slope } from "./statistics.ts";

/** The values of a line of probe.c, `port ns=123 count=4`; throws on one that tells of a failure. */
export function probeLine(line: string): Record<string, number> {
  const values = Object.fromEntries(
    [...line.matchAll(/(?:^| )([a-z0-9]+)=(\d+)(?= |$)/g)].map(([, key = "", value]) => [key, Number(value)]),
  );
  if (/ failed /.test(line) || Object.keys(values).length === 0)
    throw new Error(`the guest's program says: ${line}`);
  return values;
}

/** Lines `guest: probe LABEL ...` of a console, by label. */
export function probes(console: readonly string[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of console) {
    const match = /guest: probe (\S+) (.*?)\s*$/.exec(line);
    if (match?.[1] !== undefined && match[2] !== undefined) found.set(match[1], match[2]);
  }
  return found;
}

export interface DomainLine {
  readonly domid: number;
  /** MiB. */
  readonly memory: number;
  /** Of processor, since the domain exists. */
  readonly seconds: number;
}

/** `xl list`, by the domains' names. */
export function xlList(text: string): Map<string, DomainLine> {
  const domains = new Map<string, DomainLine>();
  for (const line of text.split("\n")) {
    const match = /^(\S+)\s+(\d+)\s+(\d+)\s+\d+\s+\S+\s+([\d.]+)\s*$/.exec(line);
    if (match?.[1] === undefined) continue;
    const [domid = 0, memory = 0, seconds = 0] = match.slice(2).map(Number);
    domains.set(match[1], { domid, memory, seconds });
  }
  return domains;
}

export interface ProcessLine {
  readonly name: string;
  /** Its share of what it uses together with others counted (PSS), KiB. */
  readonly kib: number;
  /** How often it has given up the processor by itself. */
  readonly switches: number;
}

/**
 * Prints one line for each process of dom0 that {@link processes} reads, and for each kernel thread, which has no memory of its own;
 * not for kworkers, which come and go with all work of the kernel's.
 */
export const processScript = `for dir in /proc/[0-9]*; do
  read -r name < $dir/comm || continue
  case $name in kworker/*) continue ;; esac
  cat $dir/smaps_rollup $dir/task/*/status |
    awk -v line="\${dir#/proc/}" -v name="$name" '/^Pss:/ { kib = $2 } /^voluntary_ctxt_switches/ { n += $2; some = 1 }
      END { if (some) print line, kib + 0, n, name }'
done 2> /dev/null`;

/** By process id. */
export function processes(text: string): Map<number, ProcessLine> {
  const found = new Map<number, ProcessLine>();
  for (const line of text.split("\n")) {
    const match = /^(\d+) (\d+) (\d+) (.*)$/.exec(line);
    if (match === null) continue;
    const [pid = 0, kib = 0, switches = 0] = match.slice(1, 4).map(Number);
    found.set(pid, { kib, switches, name: match[4] ?? "" });
  }
  return found;
}

/** Those that were not there before. `ignored` are the harness's own. */
export function newProcesses(
  before: ReadonlyMap<number, ProcessLine>,
  after: ReadonlyMap<number, ProcessLine>,
  ignored: readonly string[] = [],
): ProcessLine[] {
  return [...after].flatMap(([pid, line]) => (before.has(pid) || ignored.includes(line.name) ? [] : [line]));
}

/** A field of `xl info`. */
export function xlInfo(text: string, field: string): string {
  return new RegExp(`^${field}\\s*: (.*)$`, "m").exec(text)?.[1]?.trim() ?? "";
}

/** KiB of the agent's `memory` node: `40000 of 60000, least 30000`. */
export function leastMemory(node: string | undefined): number | undefined {
  const least = /least (\d+)$/.exec(node ?? "")?.[1];
  return least === undefined ? undefined : Number(least);
}

/**
 * Milliseconds since its kernel booted at which the shell stub domain started QEMU, and what of them was its own work, less
 * waiting for devices, from its log.
 */
export function shellQemuStart(log: string): { readonly start: number; readonly own: number } | undefined {
  const at = (mark: string) =>
    1000 * Number(new RegExp(`^\\[ *([0-9.]+)\\] shell: ${mark}\\r?$`, "m").exec(log)?.[1]);
  const [began, start] = [at("begins"), at("starts QEMU")];
  const own = start - began - (at("has its devices") - at("waits for devices"));
  return Number.isNaN(own) ? undefined : { start, own };
}

/** What each further guest costs, from what 1, 2, 4... cost. */
export function perGuest(points: readonly { readonly guests: number; readonly value: number }[]): number {
  return slope(points.map(({ guests, value }) => [guests, value]));
}
