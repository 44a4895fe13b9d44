import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { crc32, inflateSync } from "node:zlib";
import { describe, expect, test } from "vitest";
import { GLYPH_WIDTH, GLYPHS } from "../../../scripts/bench/glyphs.ts";
import { GROUPS, MEASURES } from "../../../scripts/bench/measures.ts";
import { writeAll } from "../../../scripts/bench/output.ts";
import { groupPlot, legend } from "../../../scripts/bench/plot.ts";
import { png } from "../../../scripts/bench/png.ts";
import { LETTER, type Scene, svg } from "../../../scripts/bench/scene.ts";
import { markdown, shortNumber } from "../../../scripts/bench/table.ts";
import { VARIANTS } from "../../../scripts/bench/variants.ts";
import { example, results } from "./example.ts";

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

  test("lies within its edges, words included", () => {
    for (const group of Object.keys(GROUPS) as (keyof typeof GROUPS)[]) {
      const long = results(
        Object.fromEntries(
          MEASURES.filter((each) => each.group === group).map(({ id }) => [
            id,
            { dom0: [123456, 999999], "linux-stubdom": [1e-9], "shell-stubdom": "w ".repeat(200) },
          ]),
        ),
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

  test("a legend says what each variant is", () => {
    expect(legend(example)).toContain("dom0: QEMU in dom0, the distribution's");
  });
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

test("all files are written, a picture for each group that has figures", () => {
  const directory = mkdtempSync(join(tmpdir(), "stubdom-bench-"));
  try {
    const written = writeAll(example, join(directory, "new"));
    expect(written.sort()).toEqual(readdirSync(join(directory, "new")).sort());
    expect(written).toEqual(
      [
        "access.png",
        "access.svg",
        "disk.png",
        "disk.svg",
        "results.json",
        "start.png",
        "start.svg",
        "table.md",
      ].sort(),
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
});
