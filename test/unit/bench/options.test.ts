import { resolve } from "node:path";
import { expect, test } from "vitest";
import { optionsOf, type Plan, USAGE } from "../../../scripts/bench/options.ts";

/** @throws where nothing would be measured */
function plan(...args: readonly string[]): Plan {
  const source = optionsOf(args)?.source;
  if (source === undefined || !("settings" in source)) throw new Error("nothing is measured");
  return source;
}

test("nothing said: three variants by turns on the emulated host, into dist/bench", () => {
  expect(plan()).toMatchObject({
    variants: ["dom0", "linux-stubdom", "shell-stubdom"],
    host: "lab",
    icount: false,
    output: "dist/bench",
    settings: { runs: 5, controller: "ahci" },
  });
  expect(optionsOf([])?.tolerance).toBe(0.01);
  expect(optionsOf(["--help"])).toBeUndefined();
});

test("what is said is done", () => {
  const said = plan(
    "--quick",
    "--runs",
    "3",
    "--only",
    "disk,idle",
    "--minios",
    "m",
    "--variants",
    "minios,dom0",
  );
  expect(said).toMatchObject({
    variants: ["minios", "dom0"],
    minios: "m",
    settings: { runs: 3, groups: ["disk", "idle"], controller: "ide" },
  });
  expect(plan("--choices").variants).toEqual([
    "dom0",
    "linux-stubdom",
    "bridge+io_uring",
    "macvtap+persistent",
    "rings",
  ]);
  expect(optionsOf(["--tolerance", "0.5"])?.tolerance).toBe(0.005);
});

test.each([
  ["--runs abc", "--runs abc: must be a number from 1"],
  ["--runs 0", "--runs 0: must be"],
  ["--runs 1.5", "--runs 1.5: must be"],
  ["--tolerance 0", "--tolerance 0: must be per cent, above 0 and below 100"],
  ["--tolerance much", "--tolerance much: must be"],
  ["--tolerance 100", "--tolerance 100: must be"],
  ["--variants dom0,dom0", "--variants dom0,dom0: dom0 is there twice"],
  ["--only disk,idle,disk", "--only disk,idle,disk: disk is there twice"],
  ["--variants dom1", "--variants dom1: there are dom0, linux-stubdom, shell-stubdom"],
  ["--variants minios", "--variants minios needs --minios FILE"],
  [
    "--minios m --variants dom0,linux-stubdom",
    "--minios is for the variant minios: name it among --variants",
  ],
  ["--minios-hvmloader h", "--minios-hvmloader is for the guests of --minios FILE"],
  ["--host moon", "--host moon: must be lab or local"],
  ["--icount --host local", "leave out --host local"],
  ["--xen sync_console --host local", "leave out --host local"],
  ["--only disks", "no group disks"],
  ["--from f --runs 3 --host lab", "--runs, --host: with --from nothing is measured"],
  ["--from f --quick", "--quick: with --from nothing is measured"],
  ["--from f --minios-hvmloader h", "--minios-hvmloader: with --from nothing is measured"],
])("%s is refused", (words, message) => {
  expect(() => optionsOf(words.split(" "))).toThrow(message);
});

test("--from writes nothing, but where it is told to, and beside the results that are there", () => {
  const from = (...args: readonly string[]) => optionsOf(["--from", ...args])?.source.output;
  expect(from("docs/bench/results.json")).toBeUndefined();
  expect(from("docs/bench/results.json", "--output", "docs/bench")).toBe("docs/bench");
  expect(from("dist/bench/results.json")).toBe("dist/bench");
  expect(from(resolve("dist/bench/results.json"))).toBe("dist/bench");
  expect(optionsOf(["--from", "a", "--compare", "b", "--tolerance", "3"])).toEqual({
    compare: "b",
    tolerance: 0.03,
    source: { from: "a", output: undefined },
  });
});

test("the usage has the statuses, and what is tolerated by the clock", () => {
  expect(USAGE).toMatch(/Status: 0 .*; 1 .*; 2 /s);
  expect(USAGE).toContain("up to twice or half");
});
