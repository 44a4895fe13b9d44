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
import { emulatorFaults } from "./lab/guest.ts";

interface Counts {
  passed: number;
  failed: number;
}

interface Part {
  readonly name: string;
  readonly what: string;
  run(): Promise<Counts>;
}

/** Where vitest leaves its counts, and the lab its logs. */
const results = "dist/test";

const parts: readonly Part[] = [
  { name: "check", what: "lint, format and types", run: () => command("npm", ["run", "--silent", "check"]) },
  { name: "unit", what: "pure logic, against golden data and fakes", run: () => vitest("unit") },
  { name: "build", what: "the image", run: () => command("npm", ["run", "--silent", "build"]) },
  {
    name: "native",
    what: "the C module under sanitizers",
    run: () => command("npx", ["tsx", "test/native/run.ts"]),
  },
  { name: "binary", what: "the compiled agent", run: () => vitest("binary") },
  { name: "xen", what: "guests on the emulated Xen host", run: () => vitest("xen", "xen-alone") },
];

function execute(program: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ["ignore", "inherit", "inherit"] });
    child.once("error", reject);
    child.once("exit", (code) => resolve(code ?? 1));
  });
}

/** A command that is one test: its exit status decides. */
async function command(program: string, args: readonly string[]): Promise<Counts> {
  const status = await execute(program, args);
  return status === 0 ? { passed: 1, failed: 0 } : { passed: 0, failed: 1 };
}

/** Projects of vitest.config.ts, counted together. A run that broke before it counted is a failure too. */
async function vitest(...projects: readonly [string, ...string[]]): Promise<Counts> {
  const [project] = projects;
  const file = `${results}/${project}.json`;
  rmSync(file, { force: true });
  // On the emulated host a test takes minutes: each is told as it ends.
  const reporters = [
    `--reporter=${project === "xen" ? "verbose" : "default"}`,
    "--reporter=json",
    `--outputFile.json=${file}`,
  ];
  const status = await execute("npx", [
    "vitest",
    "run",
    ...projects.map((name) => `--project=${name}`),
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
  const unknown = names.filter((name) => !parts.some((part) => part.name === name));
  if (unknown.length > 0) {
    for (const { name, what } of parts) console.error(`  ${name.padEnd(8)} ${what}`);
    console.error(`scripts/test: no part ${unknown.join(", ")}; name any of the above, or none for all`);
    return 2;
  }
  mkdirSync(results, { recursive: true });
  rmSync(emulatorFaults, { recursive: true, force: true });
  const total: Counts = { passed: 0, failed: 0 };
  const summary: string[] = [];
  for (const part of parts) {
    if (names.length > 0 && !names.includes(part.name)) continue;
    console.log(`\n== ${part.name}: ${part.what}`);
    const began = Date.now();
    const { passed, failed } = await part.run();
    total.passed += passed;
    total.failed += failed;
    const seconds = ((Date.now() - began) / 1000).toFixed(0);
    summary.push(`${part.name.padEnd(8)} ${passed} passed, ${failed} failed, ${seconds} s`);
    // Everything after the build needs what it makes.
    if (part.name === "build" && failed > 0) break;
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
