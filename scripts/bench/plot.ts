/** A picture a group: for each measure one bar a variant, with its figure, quartiles and cost; for several guests lines. Pure. */
import { DENSITY, GROUPS, type Group, MEASURES, type Measure } from "./measures.ts";
import { type Absent, describedIn, type Figure, isAbsent, type Results } from "./results.ts";
import { LETTER, type Scene, type Shape } from "./scene.ts";
import { cost, type Summary } from "./statistics.ts";
import { origin, runsOf, shortNumber } from "./table.ts";
import { REFERENCE, VARIANTS, type VariantName } from "./variants.ts";

/** Told apart by who sees no red or no green, and in grey (Okabe and Ito). */
const colours: Readonly<Record<VariantName, string>> = {
  dom0: "#7f7f7f",
  "linux-stubdom": "#0072b2",
  "shell-stubdom": "#e69f00",
  minios: "#009e73",
  "bridge+io_uring": "#56b4e9",
  "macvtap+persistent": "#cc79a7",
  rings: "#f0e442",
};
const ink = "#1a1a1a";
const pale = "#5a5a5a";
const mark = "#000000";

const WIDTH = 900;
const MARGIN = 20;
const NAMES = 150;
const BAR = 16;
const GAP = 6;
/** Room behind the longest bar for what it says. */
const FIGURES = 330;
const LONGEST = WIDTH - 2 * MARGIN - NAMES - FIGURES;

/** Size of what explains, and from one line of it to the next. */
const SMALL = 10;
const LINE = 14;
/** Of a picture of lines. */
const CHART = 150;
const POINT = 6;

type Row = Readonly<Partial<Record<VariantName, Figure>>>;

/** `undefined` when nothing of the group was measured. */
export function groupPlot(results: Results, group: Group): Scene | undefined {
  const rows = MEASURES.filter(
    ({ group: own, id }) =>
      own === group && Object.values(results.figures[id] ?? {}).some((figure) => !isAbsent(figure)),
  );
  if (rows.length === 0) return undefined;
  const title = `${GROUPS[group]}: ${results.variants.join(", ")}`;
  const shapes: Shape[] = [text(MARGIN, 38, GROUPS[group], 20, ink)];
  let y = 46;
  const explain = (words: string): void => {
    for (const line of wrapped(words, letters(WIDTH - 2 * MARGIN))) {
      y += LINE;
      shapes.push(text(MARGIN, y, line, SMALL, pale));
    }
  };
  const runs = runsOf(rows.flatMap(({ id }) => Object.values(results.figures[id] ?? {})));
  explain(origin(results));
  explain(
    `Median of ${runs === "1" ? "1 run" : `${runs} runs`}; the line marks the quartiles; × is the cost against ${REFERENCE}, above 1 is worse`,
  );
  y += 10;
  const heading = (measure: Measure, hint: string, words?: string): void => {
    const { title, unit } = describedIn(results, measure);
    y += 28;
    shapes.push(
      text(MARGIN, y, words ?? title, 15, ink),
      text(WIDTH - MARGIN, y, `${unit}, ${hint}`, SMALL, pale, "end"),
    );
    y += 8;
  };
  const append = (drawn: readonly Shape[], height: number): void => {
    for (const shape of drawn) shapes.push(shape);
    y += height;
  };
  const series = ["up", "host"].map((what) => rows.filter(({ id }) => id.startsWith(`density.${what}-`)));
  for (const [first, ...more] of series) {
    if (first === undefined) continue;
    heading(first, "lower is better", first.title.replace(/^1 guest: /, ""));
    append(lines(results, [first, ...more], y), CHART + 2 * LINE);
  }
  for (const measure of rows) {
    if (series.some((drawn) => drawn.includes(measure))) continue;
    heading(measure, measure.better === "less" ? "shorter is better" : "longer is better");
    append(bars(results, measure, y), results.variants.length * (BAR + GAP));
  }
  y += GAP;
  for (const line of legend(results)) explain(line);
  return { width: WIDTH, height: y + MARGIN, title, shapes };
}

/** `12.3 µs  ×1.05` */
function says(results: Results, measure: Measure, name: VariantName, { median }: Summary): string {
  const reference = results.figures[measure.id]?.[REFERENCE];
  const ratio =
    name === REFERENCE || reference === undefined || isAbsent(reference)
      ? undefined
      : cost(median, reference.median, measure.better);
  const { unit } = describedIn(results, measure);
  return `${shortNumber(median)} ${unit}${ratio === undefined ? "" : `  ×${shortNumber(ratio)}`}`;
}

function reasonOf(figure: Absent | undefined): string {
  return figure === undefined ? "not measured" : figure.absent;
}

function bars(results: Results, measure: Measure, top: number): Shape[] {
  const row: Row = results.figures[measure.id] ?? {};
  const figures = Object.values(row).flatMap((figure) => (isAbsent(figure) ? [] : [figure]));
  const most = Math.max(...figures.map(({ median, q3 }) => Math.max(median, q3)), 0);
  const length = (value: number): number => (most > 0 ? (Math.max(0, value) / most) * LONGEST : 0);
  return results.variants.flatMap((name, index): Shape[] => {
    const y = top + index * (BAR + GAP);
    const base = y + BAR - 4;
    const left = MARGIN + NAMES;
    const shapes: Shape[] = [text(left - 8, base, name, SMALL, ink, "end")];
    const figure = row[name];
    if (figure === undefined || isAbsent(figure))
      return [
        ...shapes,
        text(left, base, cut(reasonOf(figure), letters(WIDTH - MARGIN - left)), SMALL, pale),
      ];
    const { median, q1, q3 } = figure;
    const end = Math.max(length(median), length(q3));
    return [
      ...shapes,
      { kind: "rectangle", x: left, y, width: Math.max(1, length(median)), height: BAR, fill: colours[name] },
      {
        kind: "rectangle",
        x: left + length(q1),
        y: y + BAR / 2 - 1,
        width: Math.max(1, length(q3) - length(q1)),
        height: 2,
        fill: mark,
      },
      text(left + end + 8, base, says(results, measure, name, figure), SMALL, ink),
    ];
  });
}

/** One measure for each number of guests: a line a variant, from nothing, so that slopes are seen as they are. */
function lines(results: Results, measures: readonly Measure[], top: number): Shape[] {
  const points = (name: VariantName) =>
    measures.flatMap((measure) => {
      const figure = results.figures[measure.id]?.[name];
      const guests = DENSITY.find((count) => measure.id.endsWith(`-${count}`));
      return figure === undefined || isAbsent(figure) || guests === undefined
        ? []
        : [{ measure, guests, figure }];
    });
  const all = results.variants.flatMap(points);
  const [mostGuests, most] = [
    Math.max(...all.map(({ guests }) => guests)),
    Math.max(...all.map(({ figure }) => figure.median), 0),
  ];
  const [left, bottom] = [MARGIN + NAMES, top + CHART];
  const at = (guests: number, value: number): [x: number, y: number] => [
    left + (guests / mostGuests) * LONGEST,
    bottom - (most > 0 ? value / most : 0) * (CHART - POINT),
  ];
  const shapes: Shape[] = [
    { kind: "rectangle", x: left, y: top, width: 1, height: CHART, fill: pale },
    { kind: "rectangle", x: left, y: bottom, width: LONGEST, height: 1, fill: pale },
    text(left - 8, top + SMALL, shortNumber(most), SMALL, pale, "end"),
    text(left - 8, bottom, "0", SMALL, pale, "end"),
    text(left - 8, bottom + LINE, "guests", SMALL, pale, "end"),
  ];
  for (const guests of new Set(all.map((point) => point.guests)))
    shapes.push(text(at(guests, 0)[0], bottom + LINE, String(guests), SMALL, pale, "end"));
  const beside = left + LONGEST + 2 * GAP;
  for (const [index, name] of results.variants.entries()) {
    const own = points(name);
    const fill = colours[name];
    for (const [place, { guests, figure }] of own.entries()) {
      const [x, y] = at(guests, figure.median);
      const before = own[place - 1];
      const [px, py] = before === undefined ? [x, y] : at(before.guests, before.figure.median);
      shapes.push({ kind: "line", x: px, y: py, width: x - px, height: y - py, fill });
      shapes.push({
        kind: "rectangle",
        x: x - POINT / 2,
        y: y - POINT / 2,
        width: POINT,
        height: POINT,
        fill,
      });
    }
    const last = own.at(-1);
    const first = measures[0] && results.figures[measures[0].id]?.[name];
    const words =
      last === undefined
        ? reasonOf(first !== undefined && isAbsent(first) ? first : undefined)
        : `${last.guests === 1 ? "1 guest" : `${last.guests} guests`}: ${says(results, last.measure, name, last.figure)}`;
    const y = top + SMALL + index * (BAR + GAP);
    shapes.push({ kind: "rectangle", x: beside, y: y - SMALL, width: SMALL, height: SMALL, fill });
    shapes.push(
      text(
        beside + 2 * SMALL,
        y,
        cut(`${name}, ${words}`, letters(WIDTH - MARGIN - beside - 2 * SMALL)),
        SMALL,
        ink,
      ),
    );
  }
  return shapes;
}

/** How many small letters fit. */
function letters(width: number): number {
  return Math.floor(width / (SMALL * LETTER));
}

function cut(words: string, room: number): string {
  return words.length > room ? `${words.slice(0, room - 3)}...` : words;
}

function wrapped(words: string, room: number): string[] {
  const all: string[] = [];
  for (const word of words.split(" ")) {
    const longer = [...all.slice(-1), word].join(" ");
    if (all.length > 0 && longer.length <= room) all[all.length - 1] = longer;
    else all.push(cut(word, room));
  }
  return all;
}

function text(
  x: number,
  y: number,
  content: string,
  size: number,
  fill: string,
  anchor: "start" | "end" = "start",
): Shape {
  return { kind: "text", x, y, text: content, size, fill, anchor };
}

/** What each variant is. */
export function legend(results: Results): string[] {
  return results.variants.map((name) => `${name}: ${VARIANTS[name].what}`);
}
