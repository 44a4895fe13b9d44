import { expect, test } from "vitest";
import { compare, comparisonText } from "../../../scripts/bench/compare.ts";
import { about, example, results } from "./example.ts";

const verdicts = (before: Parameters<typeof compare>[0], after: Parameters<typeof compare>[1]) =>
  Object.fromEntries(
    compare(before, after).changes.map(({ id, variant, verdict }) => [`${id} ${variant}`, verdict]),
  );

test("the same is the same", () => {
  const { changes, missing, warnings } = compare(example, example);
  expect(changes).toHaveLength(8);
  expect(changes.every(({ verdict, cost }) => verdict === "same" && cost === 1)).toBe(true);
  expect([missing, warnings]).toEqual([[], []]);
  expect(comparisonText(compare(example, example))).toBe(
    "8 of 8 figures are the same within their tolerance",
  );
});

test("less or more, each the way that is better", () => {
  const before = results({
    "access.port": { dom0: [10, 10, 10], "linux-stubdom": [10, 10, 10] },
    "disk.seq-read": { dom0: [100, 100, 100], "linux-stubdom": [100, 100, 100] },
  });
  const after = results({
    "access.port": { dom0: [12, 12, 12], "linux-stubdom": [8, 8, 8] },
    "disk.seq-read": { dom0: [80, 80, 80], "linux-stubdom": [120, 120, 120] },
  });
  expect(verdicts(before, after)).toEqual({
    "access.port dom0": "worse",
    "access.port linux-stubdom": "better",
    "disk.seq-read dom0": "worse",
    "disk.seq-read linux-stubdom": "better",
  });
  expect(comparisonText(compare(before, after)).split("\n")).toEqual([
    "worse by 1.25: disk.seq-read of dom0, 100 to 80.0 MB/s (runs 3 and 3, tolerance 10 %)",
    "worse by 1.20: access.port of dom0, 10.0 to 12.0 µs (runs 3 and 3, tolerance 10 %)",
    "better by 1.25: access.port of linux-stubdom, 10.0 to 8.00 µs (runs 3 and 3, tolerance 10 %)",
    "better by 1.20: disk.seq-read of linux-stubdom, 100 to 120 MB/s (runs 3 and 3, tolerance 10 %)",
    "0 of 4 figures are the same within their tolerance",
  ]);
});

test("noise widens what is tolerated, on both sides", () => {
  const quiet = { "access.port": { dom0: [10, 10, 10] } };
  const noisy = { "access.port": { dom0: [9, 11.5, 14] } };
  expect(verdicts(results(quiet), results({ "access.port": { dom0: [11.5, 11.5, 11.5] } }))).toEqual({
    "access.port dom0": "worse",
  });
  expect(verdicts(results(quiet), results(noisy))).toEqual({ "access.port dom0": "unsure" });
  expect(verdicts(results(noisy), results(quiet))).toEqual({ "access.port dom0": "unsure" });
});

test("what is told in steps may be one apart where instructions are counted, and no more", () => {
  const host = { ...about.host, icount: true };
  const free = (mebibytes: number) =>
    results({ "resources.used": { "linux-stubdom": [mebibytes] } }, { host });
  expect(verdicts(free(26.7), free(25.8))).toEqual({ "resources.used linux-stubdom": "same" });
  expect(verdicts(free(26.7), free(25.6))).toEqual({ "resources.used linux-stubdom": "worse" });
});

test("one or two runs have no spread: half or double is told, less as unsure", () => {
  const before = results({ "access.port": { dom0: [10, 10], "linux-stubdom": [10, 10, 10] } });
  const after = (dom0: number) =>
    results({ "access.port": { dom0: [dom0, dom0, dom0], "linux-stubdom": [10, 10] } });
  expect(verdicts(before, after(19))).toEqual({
    "access.port dom0": "unsure",
    "access.port linux-stubdom": "same",
  });
  expect(verdicts(before, after(21))["access.port dom0"]).toBe("worse");
  expect(verdicts(before, after(4))["access.port dom0"]).toBe("better");
  expect(verdicts(before, after(10.9))["access.port dom0"]).toBe("same");
  expect(comparisonText(compare(before, after(18))).split("\n")).toEqual([
    "unsure, worse by 1.80: access.port of dom0, 10.0 to 18.0 µs (runs 2 and 3, tolerance 100 %)",
    "2 of 2 figures are the same within their tolerance, 1 of them unsure",
  ]);
  expect(comparisonText(compare(before, after(8)))).toContain("unsure, better by 1.25: access.port of dom0");
});

test("what was counted is compared with nothing that was not", () => {
  const counted = results({}, { host: { ...about.host, icount: true } });
  expect(() => compare(counted, example)).toThrow(
    /2026-01-02 are counted instructions \(--icount\), these are time by the clock; add --icount/,
  );
  expect(() => compare(example, counted)).toThrow(/leave out --icount/);
});

test("where instructions are counted, two in a hundred are a change; a figure of another clock is not so exact", () => {
  const host = { ...about.host, icount: true };
  const figures = (port: number, read: number) => ({
    "access.port": { dom0: [port] },
    "disk.seq-read": { dom0: [read, read, read] },
  });
  const before = results(figures(1000, 1000), { host });
  expect(verdicts(before, results(figures(1009, 1020), { host }))).toEqual({
    "access.port dom0": "same",
    "disk.seq-read dom0": "same",
  });
  expect(verdicts(before, results(figures(1020, 1000), { host }))["access.port dom0"]).toBe("worse");
  expect(verdicts(before, results(figures(980, 1000), { host }))["access.port dom0"]).toBe("better");
});

test("what this version does not know is told, and not compared", () => {
  const summary = { runs: [1], median: 1, q1: 1, q3: 1 };
  const old = { ...example, figures: { ...example.figures, "past.glory": { dom0: summary } } };
  expect(compare(old, example).missing).toEqual(["past.glory: this version knows no such measure"]);
  expect(comparisonText(compare(old, example))).toContain("- past.glory: ");
});

test("what is counted is told in instructions", () => {
  const host = { ...about.host, icount: true };
  const [before, after] = [40, 50].map((port) => results({ "access.port": { dom0: [port] } }, { host }));
  expect(comparisonText(compare(before ?? example, after ?? example))).toContain(
    "worse by 1.25: access.port of dom0, 40.0 to 50.0 thousand instructions (runs 1 and 1, tolerance 1 %)",
  );
});

test("what only one has is told, and something of what there was nothing of is as bad as worse", () => {
  const before = results({
    "access.port": { dom0: [1], "linux-stubdom": "broken" },
    "idle.stubdom": { "linux-stubdom": [0] },
  });
  const after = results({
    "access.port": { dom0: "gone", "linux-stubdom": [1] },
    "idle.stubdom": { "linux-stubdom": [2] },
  });
  const { changes, missing, lost } = compare(before, after);
  expect(changes).toEqual([]);
  expect(missing).toEqual(["access.port of linux-stubdom: not measured before"]);
  expect(lost).toEqual([
    "idle.stubdom of linux-stubdom: 0 before, 2 now",
    "access.port of dom0: not measured now",
  ]);
});

test("a slope below zero is noise, and no better than one above", () => {
  const slope = (value: number) => results({ "density.time": { dom0: [value] } });
  expect(compare(slope(-1), slope(1))).toMatchObject({
    changes: [],
    lost: [],
    missing: ["density.time of dom0: -1 before, 1 now"],
  });
});

test("what should be there and is not, or is nothing now, is lost; what was not asked for is not", () => {
  const before = results({
    "access.port": { dom0: [1], "linux-stubdom": [1] },
    "disk.seq-read": { dom0: [3], "linux-stubdom": [3] },
    "idle.switches": { dom0: [3] },
  });
  const settings = { ...about.settings, groups: "disk,idle" };
  const after = results(
    { "disk.seq-read": { "linux-stubdom": [0] }, "idle.switches": { dom0: [0] } },
    { settings },
  );
  const { missing, lost } = compare(before, after);
  expect(lost).toEqual([
    "disk.seq-read of dom0: not measured now",
    "disk.seq-read of linux-stubdom: 3 before, 0 now",
  ]);
  expect(missing).toHaveLength(3);
  const alone = results(
    { "disk.seq-read": { "linux-stubdom": [3] } },
    { settings, variants: ["linux-stubdom"] },
  );
  expect(compare(before, alone).lost).toEqual([]);
  expect(comparisonText(compare(before, after))).toContain(
    "lost: disk.seq-read of linux-stubdom: 3 before, 0 now",
  );
});

test("fewer guests at once than before are no loss, fewer of those that were asked for are one", () => {
  const ups = (...counts: readonly number[]) =>
    Object.fromEntries(counts.map((count) => [`density.up-${count}`, { dom0: [count] }]));
  const settings = { ...about.settings, groups: "density", density: "1,2,4" };
  const { lost, missing } = compare(results(ups(1, 2, 4, 8)), results(ups(1, 2), { settings }));
  expect(lost).toEqual(["density.up-4 of dom0: not measured now"]);
  expect(missing).toEqual(["density.up-8 of dom0: not measured now"]);
});

test("what measured something else then is not compared", () => {
  const now = results({ "save.disk-rate": { dom0: [5] } });
  const title = "4 MiB of made-up device state, by a state disk into dom0's file";
  const measures = { "save.disk-rate": { title, unit: "MB/s", better: "more", counted: false } } as const;
  const { changes, missing, lost } = compare({ ...now, measures }, now);
  expect([changes, lost]).toEqual([[], []]);
  expect(missing).toEqual([
    expect.stringMatching(/^save.disk-rate: "4 MiB .*" before, "32 MiB .*" now, not/),
  ]);
});

test("results of another host or with other settings are compared with a warning", () => {
  const other = results(
    {},
    { host: { ...about.host, xen: "Xen 4.17" }, settings: { ...about.settings, quick: true } },
  );
  expect(compare(example, other).warnings).toEqual([
    "host.xen differs: Xen 4.20.0 before, Xen 4.17 now",
    "settings.quick differs: false before, true now",
  ]);
});
