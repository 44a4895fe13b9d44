/**
 * Runs every test of the project in order of cost, and ends with one line `N passed, N failed`.
 *
 *     scripts/test                 everything
 *     scripts/test unit binary     only these parts
 *     scripts/test --full [PART]   on the emulated host as many rounds as are promised, which takes hours;
 *                                  without it a few of each
 */

import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { basename } from "node:path";
import { createInterface } from "node:readline";
import { signalGroup } from "../bundler/exec.ts";
import { emulatorFaults } from "./lab/emulator-faults.ts";

interface Counts {
  passed: number;
  failed: number;
}

interface Part {
  readonly name: string;
  readonly what: string;
  run(name: string): Promise<Counts>;
}

/** Where vitest leaves its counts, and the lab its logs. */
const results = "dist/test";

/** Stages one after the other; the parts of one side by side: each by itself leaves half of two cores idle. */
const stages: readonly (readonly Part[])[] = [
  [
    {
      name: "check",
      what: "lint, format and types",
      run: (name) => command(name, "npm", ["run", "--silent", "check"]),
    },
  ],
  [
    {
      name: "build",
      what: "the image",
      run: (name) => command(name, process.execPath, ["--import", "tsx", "bundler/build.ts"]),
    },
  ],
  [
    { name: "unit", what: "pure logic, against golden data and fakes", run: (name) => vitest(name) },
    {
      name: "native",
      what: "the C module under sanitizers",
      run: (name) => command(name, "npx", ["tsx", "test/native/run.ts"]),
    },
    { name: "binary", what: "the compiled agent", run: (name) => vitest(name) },
  ],
  [{ name: "xen", what: "guests on the emulated Xen host", run: (name) => vitestOnXen(name, "xen-alone") }],
];

/** Ended with this process, with all that they have started: npx and npm pass on some signals to some of them. */
const children = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of children) signalGroup(child, 15);
});

/** The exit status of a command; each line that it says bears the part's name, and `onLine` gets it. */
function execute(
  part: string,
  program: string,
  args: readonly string[],
  onLine: (line: string) => void = () => {},
): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
    children.add(child);
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on("line", (line) => {
        console.log(`${part.padEnd(6)} | ${line}`);
        onLine(line);
      });
    }
    child.once("error", reject);
    child.once("exit", (code) => {
      children.delete(child);
      // Whoever it left behind would keep the pipes open for ever.
      const patience = setTimeout(() => {
        child.stdout.destroy();
        child.stderr.destroy();
      }, 2000);
      child.once("close", () => {
        clearTimeout(patience);
        resolve(code ?? 1);
      });
    });
  });
}

/** A command that is one test: its exit status decides. */
async function command(part: string, program: string, args: readonly string[]): Promise<Counts> {
  const status = await execute(part, program, args);
  return status === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/**
 * Milliseconds that {@link interpreterTime} is on a fast machine, reckoned from one on which two emulated hosts were too many:
 * 130 there, where another interpreter takes 2.7 times as long. From twice as many on, a machine is slow.
 */
const FAST_INTERPRETER_TIME = 48;

/**
 * Milliseconds of two million turns of a loop in an interpreter, the median of five processes. An emulator is slowed down by what
 * slows an interpreter, busy neighbours on the same processor above all, of which compiled loops notice nothing.
 */
function interpreterTime(): number {
  const loop = "for (let i = 0, x = 1; i < 2e6; i++) x = (Math.imul(x, 1664525) + i) | 0;";
  const program = `const began = performance.now(); ${loop} console.log(performance.now() - began);`;
  const times = Array.from({ length: 5 }, () =>
    Number(spawnSync(process.execPath, ["--jitless", "-e", program], { encoding: "utf8" }).stdout),
  );
  return times.sort((a, b) => a - b)[2] ?? Number.NaN;
}

/**
 * How many emulated hosts run at once: two on two cores, or with LINUX_STUBDOM_HOSTS as many. On a slow machine one: with
 * half of it, dom0 does not come to the end of a guest's start in libxl's 30 s.
 */
function hostsAtOnce(): string {
  const wish = process.env.LINUX_STUBDOM_HOSTS;
  if (wish !== undefined) return wish;
  const time = interpreterTime();
  const slow = !(time < 2 * FAST_INTERPRETER_TIME);
  console.log(
    `An interpreter's loop takes ${time.toFixed(0)} ms here, ${FAST_INTERPRETER_TIME} on a fast machine: ${slow ? "one emulated host" : "two emulated hosts"} at once`,
  );
  return slow ? "1" : "2";
}

/** How often a test file is run again, at most, after the emulated processor killed a guest of it. */
const AGAIN = 2;

interface Report {
  readonly testResults: readonly {
    readonly name: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly status: string }[];
  }[];
}

/** Projects of vitest.config.ts, counted together. */
async function vitest(...projects: readonly string[]): Promise<Counts> {
  return sum((await runVitest(projects)).values());
}

/**
 * The same on the emulated host. Files that failed after the emulated processor had killed a guest of theirs, which
 * test/xen/emulator.ts tells, are run again, and their last run counts: a fault of ours fails again.
 */
async function vitestOnXen(...projects: readonly string[]): Promise<Counts> {
  process.env.LINUX_STUBDOM_HOSTS = hostsAtOnce();
  const counts = await runVitest(projects);
  for (let again = 1; again <= AGAIN; again++) {
    const evidence = (file: string): string => `${emulatorFaults}/${basename(file)}.log`;
    const failed = [...counts].flatMap(([file, { failed }]) => (failed > 0 ? [file] : []));
    const killed = failed.filter((file) => existsSync(evidence(file)));
    if (killed.length === 0) break;
    for (const file of killed) {
      const said = readFileSync(evidence(file), "utf8");
      renameSync(evidence(file), `${emulatorFaults}/${basename(file)}-${again}.log`);
      console.log(`${file} failed after this; it is run again, time ${again} of ${AGAIN} at most:\n${said}`);
    }
    for (const [file, last] of await runVitest(projects, killed)) counts.set(file, last);
  }
  return sum(counts.values());
}

function sum(all: Iterable<Counts>): Counts {
  const total = { passed: 0, failed: 0 };
  for (const { passed, failed } of all) {
    total.passed += passed;
    total.failed += failed;
  }
  return total;
}

/**
 * Counts by test file. A file that broke before it counted has failed once, and so has a run that did, or in which
 * something went wrong that no test answers for (vitest's report does not hold that): it counts as the file "".
 */
async function runVitest(
  projects: readonly string[],
  files: readonly string[] = [],
): Promise<Map<string, Counts>> {
  const [part = ""] = projects;
  const report = `${results}/${part}.json`;
  rmSync(report, { force: true });
  // On the emulated host a test takes minutes: each is told as it ends.
  const words = [
    ...["vitest", "run", ...files, ...projects.map((name) => `--project=${name}`)],
    `--reporter=${part === "xen" ? "verbose" : "default"}`,
    ...["--reporter=json", `--outputFile.json=${report}`],
  ];
  let unhandled = false;
  const status = await execute(part, "npx", words, (line) => {
    unhandled ||= /Unhandled (Error|Rejection)/.test(line);
  });
  const counts = new Map<string, Counts>();
  if (existsSync(report)) {
    for (const { name, status, assertionResults } of (JSON.parse(readFileSync(report, "utf8")) as Report)
      .testResults) {
      const passed = assertionResults.filter((test) => test.status === "passed").length;
      const failed = assertionResults.filter(
        (test) => !["passed", "skipped", "todo"].includes(test.status),
      ).length;
      const broke = status === "failed" || assertionResults.length === 0;
      counts.set(name, { passed, failed: broke ? Math.max(failed, 1) : failed });
    }
  }
  if (unhandled || (status !== 0 && sum(counts.values()).failed === 0))
    counts.set("", { passed: 0, failed: 1 });
  return counts;
}

async function main(args: readonly string[]): Promise<number> {
  const names = args.filter((arg) => arg !== "--full");
  if (args.length > names.length) process.env.LINUX_STUBDOM_FULL = "1";
  const parts = stages.flat();
  const list = parts.map(({ name, what }) => `  ${name.padEnd(8)} ${what}`).join("\n");
  if (names.includes("--help")) {
    console.log(
      `usage: scripts/test [--full] [PART...]\n\nAll parts, in order of cost, or those that are named:\n${list}\n\n--full: on the emulated host as many rounds as are promised, which takes hours`,
    );
    return 0;
  }
  const unknown = names.filter((name) => !parts.some((part) => part.name === name));
  if (unknown.length > 0) {
    console.error(
      `${list}\nscripts/test: no part ${unknown.join(", ")}; name any of the above, or none for all`,
    );
    return 2;
  }
  mkdirSync(results, { recursive: true });
  rmSync(emulatorFaults, { recursive: true, force: true });
  const total: Counts = { passed: 0, failed: 0 };
  const summary: string[] = [];
  const runPart = async ({ name, what, run }: Part): Promise<Counts> => {
    console.log(`\n== ${name}: ${what}`);
    const began = Date.now();
    const counts = await run(name);
    total.passed += counts.passed;
    total.failed += counts.failed;
    const seconds = ((Date.now() - began) / 1000).toFixed(0);
    summary.push(`${name.padEnd(8)} ${counts.passed} passed, ${counts.failed} failed, ${seconds} s`);
    return counts;
  };
  for (const stage of stages) {
    const wanted = stage.filter(({ name }) => names.length === 0 || names.includes(name));
    const counts = await Promise.all(wanted.map(runPart));
    // Everything after the build needs what it makes.
    if (wanted.some(({ name }) => name === "build") && counts.some(({ failed }) => failed > 0)) break;
  }
  console.log(`\n${summary.join("\n")}\n`);
  const killed = existsSync(emulatorFaults) ? readdirSync(emulatorFaults).length : 0;
  if (killed > 0) {
    console.log(
      `${killed} times the emulated processor killed a guest, and what it did was done again: ${emulatorFaults}`,
    );
  }
  console.log(`${total.passed} passed, ${total.failed} failed`);
  return total.failed > 0 ? 1 : 0;
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.once(signal, () => process.exit(1));
process.exitCode = await main(process.argv.slice(2));
