/** A picture a group: for each measure one bar a variant, with its figure, quartiles and cost. Pure. */
import { GROUPS, type Group, MEASURES, type Measure } from "./measures.ts";
import { type Figure, isAbsent, type Results } from "./results.ts";
import { LETTER, type Scene, type Shape } from "./scene.ts";
import { cost } from "./statistics.ts";
import { shortNumber } from "./table.ts";
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

/** `undefined` when nothing of the group was measured. */
export function groupPlot(results: Results, group: Group): Scene | undefined {
  const rows = MEASURES.filter(
    ({ group: own, id }) =>
      own === group && Object.values(results.figures[id] ?? {}).some((figure) => !isAbsent(figure)),
  );
  if (rows.length === 0) return undefined;
  const title = `${GROUPS[group]}: ${results.variants.join(", ")}`;
  const shapes: Shape[] = [text(MARGIN, 38, GROUPS[group], 20, ink)];
  shapes.push(
    text(
      MARGIN,
      60,
      "median; the line marks the quartiles; × is the cost against dom0, above 1 is worse",
      10,
      pale,
    ),
  );
  let y = 70;
  for (const measure of rows) {
    y += 28;
    const hint = measure.better === "less" ? "shorter is better" : "longer is better";
    shapes.push(text(MARGIN, y, measure.title, 15, ink));
    shapes.push(text(WIDTH - MARGIN, y, `${measure.unit}, ${hint}`, 10, pale, "end"));
    y += 8;
    for (const shape of bars(results, measure, y)) shapes.push(shape);
    y += results.variants.length * (BAR + GAP);
  }
  return { width: WIDTH, height: y + MARGIN, title, shapes };
}

function bars(results: Results, { id, better, unit }: Measure, top: number): Shape[] {
  const row: Readonly<Partial<Record<VariantName, Figure>>> = results.figures[id] ?? {};
  const figures = Object.values(row).flatMap((figure) => (isAbsent(figure) ? [] : [figure]));
  const most = Math.max(...figures.map(({ median, q3 }) => Math.max(median, q3)), 0);
  const length = (value: number): number => (most > 0 ? (Math.max(0, value) / most) * LONGEST : 0);
  const reference = row[REFERENCE];
  return results.variants.flatMap((name, index): Shape[] => {
    const y = top + index * (BAR + GAP);
    const base = y + BAR - 4;
    const left = MARGIN + NAMES;
    const shapes: Shape[] = [text(left - 8, base, name, 10, ink, "end")];
    const figure = row[name];
    if (figure === undefined || isAbsent(figure)) {
      const reason = figure === undefined ? "not measured" : figure.absent;
      const room = Math.floor((WIDTH - MARGIN - left) / (10 * LETTER));
      return [
        ...shapes,
        text(left, base, reason.length > room ? `${reason.slice(0, room - 3)}...` : reason, 10, pale),
      ];
    }
    const { median, q1, q3 } = figure;
    const ratio =
      name === REFERENCE || reference === undefined || isAbsent(reference)
        ? undefined
        : cost(median, reference.median, better);
    const says = `${shortNumber(median)} ${unit}${ratio === undefined ? "" : `  ×${shortNumber(ratio)}`}`;
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
      text(left + end + 8, base, says, 10, ink),
    ];
  });
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

/** What each variant is, for the page that shows the pictures. */
export function legend(results: Results): string[] {
  return results.variants.map((name) => `${name}: ${VARIANTS[name].what}`);
}
