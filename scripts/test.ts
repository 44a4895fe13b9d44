/**
 * Runs every test of the project in order of cost, and ends with one line `N passed, N failed`.
 *
 *     scripts/test                 everything
 *     scripts/test unit binary     only these parts
 *     scripts/test --full [PART]   on the emulated host as many rounds as are promised, which takes hours;
 *                                  without it a few of each
 */

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createInterface } from "node:readline";
import { emulatorFaults } from "./lab/guest.ts";

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
  [{ name: "build", what: "the image", run: (name) => command(name, "npm", ["run", "--silent", "build"]) }],
  [
    { name: "unit", what: "pure logic, against golden data and fakes", run: (name) => vitest(name) },
    {
      name: "native",
      what: "the C module under sanitizers",
      run: (name) => command(name, "npx", ["tsx", "test/native/run.ts"]),
    },
    { name: "binary", what: "the compiled agent", run: (name) => vitest(name) },
  ],
  [{ name: "xen", what: "guests on the emulated Xen host", run: (name) => vitest(name, "xen-alone") }],
];

/** The exit status of a command; each line that it says bears the part's name. */
function execute(part: string, program: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    for (const stream of [child.stdout, child.stderr]) {
      createInterface(stream).on("line", (line) => console.log(`${part.padEnd(6)} | ${line}`));
    }
    child.once("error", reject);
    child.once("exit", (code) => {
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

/** Projects of vitest.config.ts, counted together. A run that broke before it counted is a failure too. */
async function vitest(project: string, ...more: readonly string[]): Promise<Counts> {
  const file = `${results}/${project}.json`;
  rmSync(file, { force: true });
  // On the emulated host a test takes minutes: each is told as it ends.
  const reporters = [
    `--reporter=${project === "xen" ? "verbose" : "default"}`,
    "--reporter=json",
    `--outputFile.json=${file}`,
  ];
  const status = await execute(project, "npx", [
    "vitest",
    "run",
    ...[project, ...more].map((name) => `--project=${name}`),
    ...reporters,
  ]);
  let counts: Counts = { passed: 0, failed: 0 };
  try {
    const report = JSON.parse(readFileSync(file, "utf8")) as {
      numPassedTests: number;
      numFailedTests: number;
    };
    counts = { passed: report.numPassedTests, failed: report.numFailedTests };
  } catch {
    // No report: judged by the status below.
  }
  return status !== 0 && counts.failed === 0 ? { ...counts, failed: 1 } : counts;
}

async function main(args: readonly string[]): Promise<number> {
  const names = args.filter((arg) => arg !== "--full");
  if (args.length > names.length) process.env.LINUX_STUBDOM_FULL = "1";
  const unknown = names.filter((name) => !stages.flat().some((part) => part.name === name));
  if (unknown.length > 0) {
    for (const { name, what } of stages.flat()) console.error(`  ${name.padEnd(8)} ${what}`);
    console.error(`scripts/test: no part ${unknown.join(", ")}; name any of the above, or none for all`);
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
    console.log(`${killed} guests were killed by the emulated processor and started anew: ${emulatorFaults}`);
  }
  console.log(`${total.passed} passed, ${total.failed} failed`);
  return total.failed > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
