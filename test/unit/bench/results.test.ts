import { describe, expect, test } from "vitest";
import { MEASURES, measure } from "../../../scripts/bench/measures.ts";
import { parseResults, Recorder, ResultsError } from "../../../scripts/bench/results.ts";
import { interleaved, VARIANT_NAMES } from "../../../scripts/bench/variants.ts";
import { about, example } from "./example.ts";

test("the table of measures: each has its own id, in its group", () => {
  expect(new Set(MEASURES.map(({ id }) => id)).size).toBe(MEASURES.length);
  for (const { id, group } of MEASURES) expect(id.startsWith(`${group}.`)).toBe(true);
  expect(measure("access.port").unit).toBe("µs");
  expect(() => measure("x")).toThrow("no measure x");
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
    expect(() => recorder.absent("dom0", "x", "")).toThrow("no measure x");
  });
});

describe("the file", () => {
  const text = JSON.stringify(example);

  test("is read back as it was written", () => {
    expect(parseResults(text, "f")).toEqual(example);
  });

  test("medians follow from the runs, whatever it says", () => {
    const edited = text.replace('"median":11', '"median":1');
    expect(edited).not.toBe(text);
    expect(parseResults(edited, "f")).toEqual(example);
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
