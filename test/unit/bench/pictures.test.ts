import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, inflateSync } from "node:zlib";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { GLYPH_WIDTH, GLYPHS } from "../../../scripts/bench/glyphs.ts";
import { GROUPS, MEASURES } from "../../../scripts/bench/measures.ts";
import { checkWritable, removeOwn, writeAll } from "../../../scripts/bench/output.ts";
import { groupPlot, legend } from "../../../scripts/bench/plot.ts";
import { png } from "../../../scripts/bench/png.ts";
import { parseResults } from "../../../scripts/bench/results.ts";
import { LETTER, type Scene, svg } from "../../../scripts/bench/scene.ts";
import { markdown, shortNumber } from "../../../scripts/bench/table.ts";
import { VARIANTS } from "../../../scripts/bench/variants.ts";
import { about, example, results } from "./example.ts";

/** A PNG as its pixels; checks every chunk. */
function decode(bytes: Buffer): { width: number; height: number; at(x: number, y: number): string } {
  expect(bytes.subarray(0, 8).toString("hex")).toBe("89504e470d0a1a0a");
  const chunks = new Map<string, Buffer>();
  for (let at = 8; at < bytes.length; ) {
    const length = bytes.readUInt32BE(at);
    const body = bytes.subarray(at + 4, at + 8 + length);
    expect(bytes.readUInt32BE(at + 8 + length)).toBe(crc32(body));
    chunks.set(body.subarray(0, 4).toString(), body.subarray(4));
    at += 12 + length;
  }
  expect([...chunks.keys()]).toEqual(["IHDR", "IDAT", "IEND"]);
  const header = chunks.get("IHDR") ?? Buffer.alloc(0);
  const [width, height] = [header.readUInt32BE(0), header.readUInt32BE(4)];
  expect(header.subarray(8).toString("hex")).toBe("0802000000");
  const rows = inflateSync(chunks.get("IDAT") ?? Buffer.alloc(0));
  expect(rows.length).toBe(height * (1 + 3 * width));
  return {
    width,
    height,
    at: (x, y) => {
      const pixel = y * (1 + 3 * width) + 1 + 3 * x;
      return `#${rows.subarray(pixel, pixel + 3).toString("hex")}`;
    },
  };
}

describe("letters", () => {
  test("are all five dots wide, and at most nine high", () => {
    for (const [letter, rows] of Object.entries(GLYPHS)) {
      const lines = rows.split(" ");
      expect(lines.length, letter).toBeLessThanOrEqual(9);
      for (const line of lines) expect(line, letter).toMatch(new RegExp(`^[.#]{${GLYPH_WIDTH}}$`));
    }
    expect(new Set(Object.values(GLYPHS)).size).toBe(Object.keys(GLYPHS).length);
  });

  test("are there for all that is ever written", () => {
    const texts = [
      ...Object.values(GROUPS),
      ...MEASURES.flatMap(({ title, unit }) => [title, unit]),
      ...Object.values(VARIANTS).flatMap(({ what }) => what),
      ...Object.keys(VARIANTS),
      "0123456789.e-+ shorter is better; longer",
      // A machine's processor may be called anything.
      String.fromCharCode(...Array.from({ length: 0x7f - 0x21 }, (_, index) => 0x21 + index)),
    ];
    for (const letter of new Set(texts.join("")))
      expect(letter === " " || letter in GLYPHS, letter).toBe(true);
  });
});

describe("a scene", () => {
  const scene: Scene = {
    width: 20,
    height: 12,
    title: 'a & b < "c"',
    shapes: [
      { kind: "rectangle", x: 2, y: 3, width: 4, height: 5, fill: "#0072b2" },
      { kind: "rectangle", x: 18, y: 10, width: 100, height: 100, fill: "#e69f00" },
      { kind: "rectangle", x: 12, y: 1, width: 0.1, height: 0.1, fill: "#009e73" },
      { kind: "text", x: 19, y: 9, text: "I", size: 5, anchor: "end", fill: "#123456" },
    ],
  };

  test("as PNG has its shapes where they belong, and what does not fit is cut", () => {
    const picture = decode(png(scene));
    expect([picture.width, picture.height]).toEqual([40, 24]);
    expect([picture.at(3, 6), picture.at(4, 6), picture.at(11, 15), picture.at(12, 16)]).toEqual([
      "#ffffff",
      "#0072b2",
      "#0072b2",
      "#ffffff",
    ]);
    expect([picture.at(39, 23), picture.at(35, 23)]).toEqual(["#e69f00", "#ffffff"]);
    expect(picture.at(24, 2)).toBe("#009e73");
    // One letter of 5 * 0.6 * 2 pixels, right of which is its gap: the stroke of the I is in its middle.
    expect(picture.at(38 - 5 * LETTER * 2 + 2, 14)).toBe("#123456");
  });

  test("has lines, in either direction, as thick as they are", () => {
    const line = (height: number): Scene => ({
      ...scene,
      shapes: [{ kind: "line", x: 4, y: 6, width: 10, height, fill: "#0072b2" }],
    });
    for (const height of [5, -5]) {
      const picture = decode(png(line(height)));
      for (const [x, y] of [
        [8, 12],
        [18, 12 + height],
        [28, 12 + 2 * height],
      ] as const)
        for (const near of [-2, 1]) expect(picture.at(x + near, y + near), `${x} ${y}`).toBe("#0072b2");
      expect(picture.at(18, 12 - height)).toBe("#ffffff");
    }
    expect(svg(line(-5))).toContain('<line x1="4" y1="6" x2="14" y2="1" stroke="#0072b2" stroke-width="2"/>');
  });

  test("as SVG escapes what is text", () => {
    const picture = svg({
      ...scene,
      shapes: [{ kind: "text", x: 1, y: 2, text: "<&>", size: 5, anchor: "end", fill: "#000000" }],
    });
    expect(picture).toContain("<title>a &#38; b &#60; &#34;c&#34;</title>");
    expect(picture).toContain(
      '<text x="1" y="2" font-size="5" text-anchor="end" fill="#000000">&#60;&#38;&#62;</text>',
    );
    expect(picture).toMatch(/^<svg xmlns="http:\/\/www\.w3\.org\/2000\/svg" width="20" height="12"/);
  });

  test("refuses what is no colour", () => {
    const shape = { kind: "rectangle", x: 0, y: 0, width: 1, height: 1, fill: "red" } as const;
    expect(() => png({ ...scene, shapes: [shape] })).toThrow("no colour: red");
  });
});

describe("a group's picture", () => {
  test("has a bar for each figure, whose length is its median, and the reason for what is not there", () => {
    const scene = groupPlot(example, "access");
    const bars = scene?.shapes.filter((shape) => shape.kind === "rectangle" && shape.height > 2) ?? [];
    const widths = bars.map((bar) => (bar.kind === "rectangle" ? bar.width : 0));
    expect(widths).toHaveLength(5);
    const [dom0 = 0, ours = 0, shell = 0] = widths;
    expect(ours / dom0).toBeCloseTo(2, 6);
    expect(shell / dom0).toBeCloseTo(25 / 11, 6);
    const texts = scene?.shapes.flatMap((shape) => (shape.kind === "text" ? [shape.text] : [])) ?? [];
    expect(texts).toContain("22.0 µs  ×2.00");
    expect(texts).toContain("no NIC <there> & never");
  });

  test.each([false, true])("lies within its edges, words included; counted: %s", (icount) => {
    for (const group of Object.keys(GROUPS) as (keyof typeof GROUPS)[]) {
      const long = results(
        Object.fromEntries(
          MEASURES.filter((each) => each.group === group).map(({ id }) => [
            id,
            { dom0: [123456, 999999], "linux-stubdom": [1e-9], "shell-stubdom": "w ".repeat(200) },
          ]),
        ),
        { host: { ...about.host, machine: `Processor ${"[@#&] ".repeat(40)}${"x".repeat(200)}`, icount } },
      );
      const scene = groupPlot(long, group);
      expect(scene).toBeDefined();
      for (const shape of scene?.shapes ?? []) {
        const width = shape.kind === "text" ? shape.text.length * shape.size * LETTER : shape.width;
        const left = shape.kind === "text" && shape.anchor === "end" ? shape.x - width : shape.x;
        expect(left).toBeGreaterThanOrEqual(0);
        expect(left + width).toBeLessThanOrEqual(scene?.width ?? 0);
        expect(shape.y).toBeLessThanOrEqual(scene?.height ?? 0);
      }
    }
  });

  test("is none when nothing was measured", () => {
    expect(groupPlot(example, "network")).toBeUndefined();
    expect(groupPlot(results({ "start.agent": { dom0: "no" } }), "start")).toBeUndefined();
  });

  test("of nothing but zeros is no picture of infinite bars", () => {
    const scene = groupPlot(results({ "idle.stubdom": { "linux-stubdom": [0] } }), "idle");
    for (const shape of scene?.shapes ?? []) expect(JSON.stringify(shape)).not.toContain("null");
  });

  const words = (scene: Scene | undefined) =>
    (scene?.shapes ?? []).flatMap((shape) => (shape.kind === "text" ? [shape.text] : []));

  test("says by itself what it is of", () => {
    const said = words(groupPlot(example, "access"));
    expect(said).toContain(
      "Made 2026-01-02 of abc1234, on the emulated host: Xen 4.20.0, dom0 Linux 6.12, QEMU 10.0, a processor, 2 cores. Time is real time.",
    );
    expect(said).toContain(
      "Median of 1 to 3 runs; the line marks the quartiles; × is the cost against dom0, above 1 is worse",
    );
    expect(said).toEqual(expect.arrayContaining(legend(example)));
    expect(legend(example)).toContain("dom0: QEMU in dom0, the distribution's");
  });

  test("of what was counted is in instructions, and says so", () => {
    const host = { ...about.host, icount: true };
    const counted = results({ "access.port": { dom0: [52], "linux-stubdom": [26] } }, { host });
    const said = words(groupPlot(counted, "access"));
    expect(said).toContain("26.0 thousand instructions  ×0.500");
    expect(said).toContain("read of an I/O port (keyboard's status), mean of the lowest 90 %");
    expect(said.join(" ")).toContain("Instructions are counted in place of time");
    expect(said.join(" ")).not.toContain("µs");
    const text = markdown(counted);
    expect(text).toContain("mean of the lowest 90 % | thousand instructions, less is better");
    expect(text).not.toMatch(/µs|, median/);
  });

  test("of several guests has a line a variant, whose slope is what a guest more costs", () => {
    const dense = results({
      "density.up-1": { dom0: [10], "linux-stubdom": [20], "shell-stubdom": "broken" },
      "density.up-2": { dom0: [20], "linux-stubdom": [40], "shell-stubdom": "broken" },
      "density.up-4": { dom0: [40], "linux-stubdom": [80], "shell-stubdom": "broken" },
      "density.time": { dom0: [10], "linux-stubdom": [20], "shell-stubdom": "broken" },
    });
    const scene = groupPlot(dense, "density");
    const steep = (scene?.shapes ?? []).flatMap((shape) =>
      shape.kind === "line" && shape.width > 0 ? [shape.height / shape.width] : [],
    );
    expect(steep).toHaveLength(4);
    const [dom0 = 0, alike = 0, ours = 0] = steep;
    expect(dom0).toBeLessThan(0);
    expect(alike).toBeCloseTo(dom0, 6);
    expect(ours).toBeCloseTo(2 * dom0, 6);
    expect(words(scene)).toEqual(
      expect.arrayContaining([
        "until all are up",
        "linux-stubdom, 4 guests: 80.0 s  ×2.00",
        "shell-stubdom, broken",
        "each further guest: time until all are up",
      ]),
    );
    expect(words(scene)).not.toContain("1 guest: until all are up");
  });
});

test("a file of when a measure was of something else says so still, in its table, picture and own words", () => {
  const title = "4 MiB of made-up device state, by a state disk into dom0's file";
  const measures = { "save.disk-rate": { title, unit: "MB/s", better: "more", counted: false } } as const;
  const old = results({ "save.disk-rate": { "linux-stubdom": [5] } }, { measures });
  expect(markdown(old)).toContain(`| ${title} | MB/s, more is better |`);
  expect(svg(groupPlot(old, "save") as Scene)).toContain("4 MiB of made-up");
  const directory = mkdtempSync(join(tmpdir(), "bench-old-"));
  writeAll(old, directory);
  const kept = parseResults(readFileSync(join(directory, "results.json"), "utf8"), "results.json");
  rmSync(directory, { recursive: true });
  expect(kept.measures).toEqual(measures);
});

describe("the table", () => {
  test("has medians, quartiles, costs and reasons", () => {
    const text = markdown(example);
    expect(text).toContain("### One emulated access");
    expect(text).toContain(
      "| read of an I/O port (keyboard's status), median | µs, less is better | 1 to 3 | 11.0 (10.5 to 11.5) | 22.0 (21.0 to 23.0) **×2.00** | 25.0 (25.0 to 25.0) **×2.27** |",
    );
    expect(text).toContain(
      "| the same read again, 64 KiB | MB/s, more is better | 2 | 51.0 (50.5 to 51.5) | 25.5 (25.3 to 25.8) **×2.00** |  |",
    );
    // One note for one reason, however often.
    expect(text.match(/there is no stub domain/g)).toHaveLength(1);
    expect(text).toContain("| [1] | 1.50 (1.50 to 1.50) | [1] |");
    expect(text).not.toContain("### Network");
  });

  test.each([
    [0, "0"],
    [1, "1.00"],
    [12.345, "12.3"],
    [123.45, "123"],
    [12345.6, "12346"],
    [0.012345, "0.0123"],
    [-Math.PI, "-3.14"],
    [1.5e-9, "1.50e-9"],
  ])("%d is written %s", (value, text) => expect(shortNumber(value)).toBe(text));
});

describe("the files", () => {
  let directory: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), "stubdom-bench-"));
  });
  afterEach(() => rmSync(directory, { recursive: true }));
  const pictures = ["access", "disk", "start"].flatMap((group) => [`${group}.png`, `${group}.svg`]);
  const all = [...pictures, "results.json", "table.md"].sort();

  test("are all written, a picture for each group that has figures", () => {
    const written = writeAll(example, join(directory, "new"));
    expect(written.sort()).toEqual(readdirSync(join(directory, "new")).sort());
    expect(written).toEqual(all);
  });

  test("are those of this run alone, and nobody else's are touched", () => {
    for (const name of ["network.svg", "network.png", "results.json", "notes.txt"])
      writeFileSync(join(directory, name), "old");
    writeAll(example, directory);
    expect(readdirSync(directory).sort()).toEqual([...all, "notes.txt"].sort());
    removeOwn(directory);
    expect(readdirSync(directory)).toEqual(["notes.txt"]);
  });

  test("say what their figures are, and what they said of those that nobody knows any more", () => {
    const glory = { title: "b", unit: "laurels", better: "more", counted: false } as const;
    const figures = { ...example.figures, "past.glory": { dom0: { runs: [1], median: 1, q1: 1, q3: 1 } } };
    writeAll({ ...example, figures, measures: { "past.glory": glory, "past.fame": glory } }, directory);
    const file = join(directory, "results.json");
    const { measures } = parseResults(readFileSync(file, "utf8"), file);
    expect(Object.keys(measures ?? {}).sort()).toEqual(Object.keys(figures).sort());
    expect(measures).toMatchObject({
      "access.port": { unit: "µs", better: "less", counted: true },
      "past.glory": glory,
    });
  });

  test("that cannot be written are known of before", () => {
    checkWritable(join(directory, "a", "b"));
    expect(readdirSync(join(directory, "a", "b"))).toEqual([]);
    const taken = join(directory, "taken");
    mkdirSync(join(taken, "access.svg"), { recursive: true });
    const file = join(directory, "file");
    writeFileSync(file, "");
    for (const place of [file, join(file, "below"), taken])
      expect(() => checkWritable(place)).toThrow(
        new RegExp(`^--output ${place}: cannot be written \\(.*\\); name another directory`),
      );
  });
});
