import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PROJECT } from "../../../bundler/paths.ts";
import { GROUPS, type Group, MEASURES, meansWhenCounted, measure } from "../../../scripts/bench/measures.ts";
import { parseResults, Recorder, ResultsError } from "../../../scripts/bench/results.ts";
import { interleaved, VARIANT_NAMES } from "../../../scripts/bench/variants.ts";
import { about, example } from "./example.ts";

test("the table of measures: each has its own id, in its group", () => {
  expect(new Set(MEASURES.map(({ id }) => id)).size).toBe(MEASURES.length);
  for (const { id, group } of MEASURES) expect(id.startsWith(`${group}.`)).toBe(true);
  expect(measure("access.port").unit).toBe("µs");
  expect(() => measure("x")).toThrow("no measure x");
});

const file = (path: string) => readFileSync(join(PROJECT, path), "utf8");

test("the documentation lists the measures and their units", () => {
  const lines = file("docs/bench.md").split("\n");
  for (const group of Object.keys(GROUPS) as Group[]) {
    const own = MEASURES.filter((each) => each.group === group).map(
      ({ id, unit, better, counted, step }) =>
        `\`${id.slice(group.length + 1)}\` ${unit}${better === "more" ? " ↑" : ""}${counted ? " #" : ""}${step === undefined ? "" : ` (in steps of ${step})`}`,
    );
    expect(lines).toContain(`| \`${group}\` | ${own.join(", ")} |`);
  }
});

test("what a run counts is in the baseline that scripts/test compares with", () => {
  const { figures } = parseResults(file("docs/bench/counted.json"), "counted.json");
  for (const { id } of MEASURES.filter(meansWhenCounted))
    expect(figures[id]?.["linux-stubdom"], id).toMatchObject({ median: expect.any(Number) });
});

describe("interleaving", () => {
  test("every round has every variant once, and begins with another", () => {
    const order = interleaved(VARIANT_NAMES, VARIANT_NAMES.length + 1);
    expect(order).toHaveLength(VARIANT_NAMES.length + 1);
    for (const round of order) expect([...round].sort()).toEqual([...VARIANT_NAMES].sort());
    expect(order.map(([first]) => first)).toEqual([...VARIANT_NAMES, VARIANT_NAMES[0]]);
  });
});

describe("the recorder", () => {
  test("puts measures in the table's order, and a figure before a reason", () => {
    const recorder = new Recorder();
    recorder.add("linux-stubdom", "disk.seq-read", 5);
    recorder.add("dom0", "access.port", 1);
    recorder.absent("dom0", "access.port", "never");
    recorder.absent("linux-stubdom", "access.port", "not yet");
    recorder.trouble("x broke");
    const { figures, troubles } = recorder.results(about);
    expect(Object.keys(figures)).toEqual(["access.port", "disk.seq-read"]);
    expect(figures["access.port"]).toEqual({
      dom0: { runs: [1], median: 1, q1: 1, q3: 1 },
      "linux-stubdom": { absent: "not yet" },
    });
    expect(troubles).toEqual(["x broke"]);
  });

  test("refuses what is no measure or no number", () => {
    const recorder = new Recorder();
    expect(() => recorder.add("dom0", "access.nothing", 1)).toThrow("no measure access.nothing");
    expect(() => recorder.add("dom0", "access.port", Number.NaN)).toThrow(RangeError);
    expect(() => recorder.add("dom0", "access.port", -1)).toThrow("access.port of dom0 is -1");
    recorder.add("dom0", "density.memory", -1);
    expect(() => recorder.absent("dom0", "x", "")).toThrow("no measure x");
  });
});

describe("the file", () => {
  const text = JSON.stringify(example);

  test("is read back as it was written", () => {
    expect(parseResults(text, "f")).toEqual(example);
  });

  test.each(["median", "q1", "q3"])("a %s that does not follow from its runs is refused by name", (key) => {
    const stated = (value: unknown) => {
      const dom0 = { runs: [10, 12, 11], median: 11, q1: 10.5, q3: 11.5, [key]: value };
      return JSON.stringify({ ...example, figures: { "access.port": { dom0 } } });
    };
    const right = { median: 11, q1: 10.5, q3: 11.5 }[key] ?? 0;
    for (const value of [right, right + 1e-9, undefined])
      expect(parseResults(stated(value), "f").figures["access.port"]?.dom0).toMatchObject({ [key]: right });
    expect(() => parseResults(stated(1), "f")).toThrow(
      `f: figures.access.port.dom0.${key} is 1, but ${right} by its runs: take back what was edited`,
    );
    expect(() => parseResults(stated("11"), "f")).toThrow(`dom0.${key} is no number`);
  });

  test("a figure below nothing is refused, unless it is a slope", () => {
    const falling = (id: string) =>
      JSON.stringify({ ...example, figures: { [id]: { dom0: { runs: [1, -3] } } } });
    expect(() => parseResults(falling("access.port"), "f")).toThrow(
      "f: figures.access.port.dom0.runs[1] is -3, less than nothing; make it anew",
    );
    expect(parseResults(falling("density.time"), "f").figures["density.time"]?.dom0).toMatchObject({
      median: -1,
    });
    const endless = JSON.stringify({ ...example, figures: { x: { dom0: { runs: [0] } } } });
    expect(() => parseResults(endless.replace("[0]", "[1e999]"), "f")).toThrow("runs[0] is no number");
  });

  test("of measures in another unit is refused, and one that this version does not know is kept", () => {
    const measures = (unit: string) => ({
      "access.port": { title: "a", unit, better: "less", counted: true },
      "past.glory": { title: "b", unit: "laurels", better: "more", counted: false },
    });
    const read = (unit: string, host = example.host) =>
      parseResults(JSON.stringify({ ...example, host, measures: measures(unit) }), "f").measures;
    expect(read("µs")).toEqual(measures("µs"));
    expect(() => read("ms")).toThrow("f: measures.access.port.unit is ms, in this version µs; make it anew");
    const counted = { ...example.host, icount: true };
    expect(read("thousand instructions", counted)).toEqual(measures("thousand instructions"));
    expect(() => read("µs", counted)).toThrow("in this version thousand instructions");
  });

  test.each<[string, (top: Record<string, unknown>) => unknown, RegExp]>([
    ["no object", () => 3, /f: the file is no object/],
    [
      "another schema",
      (top) => ({ ...top, schema: 2 }),
      /f: schema is 2, this version reads 1; .*npm run bench/,
    ],
    ["no host", (top) => ({ ...top, host: null }), /host is no object/],
    ["a strange kind", (top) => ({ ...top, host: { ...example.host, kind: "x" } }), /host\.kind is x/],
    ["a strange variant", (top) => ({ ...top, variants: ["dom1"] }), /variants\[0\] is no variant: "dom1"/],
    ["a strange round", (top) => ({ ...top, order: ["dom0"] }), /order\[0\] is no list/],
    ["a strange setting", (top) => ({ ...top, settings: { a: [] } }), /settings\.a is neither/],
    [
      "no runs",
      (top) => ({ ...top, figures: { "access.port": { dom0: { runs: [] } } } }),
      /dom0\.runs is empty/,
    ],
    [
      "a run that is no number",
      (top) => ({ ...top, figures: { "access.port": { dom0: { runs: [1, "2"] } } } }),
      /figures\.access\.port\.dom0\.runs\[1\] is no number/,
    ],
    ["troubles that are no text", (top) => ({ ...top, troubles: [3] }), /troubles\[0\] is no text/],
  ])("with %s is refused by name", (_, change, message) => {
    const changed = JSON.stringify(change(JSON.parse(text) as Record<string, unknown>));
    expect(() => parseResults(changed, "f")).toThrow(ResultsError);
    expect(() => parseResults(changed, "f")).toThrow(message);
  });

  test("cut anywhere is refused", () => {
    for (let length = 0; length < text.length; length += 7)
      expect(() => parseResults(text.slice(0, length), "f")).toThrow(ResultsError);
  });

  test("keeps measures that this version does not know", () => {
    const old = { ...example, figures: { ...example.figures, "past.glory": { dom0: { runs: [1] } } } };
    expect(parseResults(JSON.stringify(old), "f").figures["past.glory"]?.dom0).toMatchObject({ median: 1 });
  });
});
