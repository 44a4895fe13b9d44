/** The results for people: one Markdown table a group, with the cost against the reference. Pure. */
import { GROUPS, type Group, MEASURES } from "./measures.ts";
import { describedIn, type Figure, isAbsent, type Results } from "./results.ts";
import { cost } from "./statistics.ts";
import { REFERENCE, VARIANTS, type VariantName } from "./variants.ts";

/** Three digits that count, as people write them: `0.0123`, `4.56`, `789`, `12300`. */
export function shortNumber(value: number): string {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return digits > 8 ? value.toExponential(2) : value.toFixed(digits);
}

/** When and where results were made, of what, and what their time is. */
export function origin({ made, commit, host }: Results): string {
  const clock = host.icount
    ? "Instructions are counted in place of time: those of Xen, dom0, stub domain and guest together."
    : "Time is real time.";
  return `Made ${made.slice(0, 10)} of ${commit}, on ${host.kind === "lab" ? "the emulated host" : "a Xen host"}: ${host.xen}, dom0 ${host.dom0}, ${host.machine}. ${clock}`;
}

/** `2`, `1 to 3`: how many runs the fewest and the most of these figures have; empty where there are none. */
export function runsOf(figures: readonly (Figure | undefined)[]): string {
  const counts = figures.flatMap((each) => (each === undefined || isAbsent(each) ? [] : [each.runs.length]));
  return counts.length === 0 ? "" : [...new Set([Math.min(...counts), Math.max(...counts)])].join(" to ");
}

export function markdown(results: Results): string {
  const notes: string[] = [];
  const note = (text: string): string => {
    const at = notes.indexOf(text);
    return `[${at < 0 ? notes.push(text) : at + 1}]`;
  };
  const tables = (Object.keys(GROUPS) as Group[]).flatMap((group) => groupTable(results, group, note));
  return [
    origin(results),
    "",
    "A figure is the median of its runs, the quartiles behind it; **×** is the cost against " +
      `${REFERENCE}: above 1 is worse, whether less or more is better.`,
    ...tables,
    ...(notes.length > 0 ? ["", ...notes.map((text, index) => `[${index + 1}] ${text}`)] : []),
    ...(results.troubles.length > 0 ? ["", "Trouble on the way:", ""] : []),
    ...results.troubles.map((text) => `- ${text}`),
    "",
    "What differs, beside who emulates:",
    "",
    ...results.variants.map((name) => `- ${name}: ${VARIANTS[name].differs}`),
    "",
  ].join("\n");
}

function groupTable(results: Results, group: Group, note: (text: string) => string): string[] {
  const rows = MEASURES.filter((each) => each.group === group && results.figures[each.id] !== undefined);
  if (rows.length === 0) return [];
  const { variants } = results;
  return [
    "",
    `### ${GROUPS[group]}`,
    "",
    `| | unit | runs | ${variants.join(" | ")} |`,
    `| --- | --- | --- |${variants.map(() => " --- |").join("")}`,
    ...rows.map((each) => {
      const { id } = each;
      const { title, unit, better } = describedIn(results, each);
      const row = results.figures[id] ?? {};
      const reference = row[REFERENCE];
      const cell = (name: VariantName): string => {
        const figure = row[name];
        if (figure === undefined) return "";
        if (isAbsent(figure)) return note(figure.absent);
        const { median, q1, q3 } = figure;
        const ratio =
          name === REFERENCE || reference === undefined || isAbsent(reference)
            ? undefined
            : cost(median, reference.median, better);
        const times = ratio === undefined ? "" : ` **×${shortNumber(ratio)}**`;
        return `${shortNumber(median)} (${shortNumber(q1)} to ${shortNumber(q3)})${times}`;
      };
      const runs = runsOf(variants.map((name) => row[name]));
      const arrow = better === "less" ? "less is better" : "more is better";
      return `| ${title} | ${unit}, ${arrow} | ${runs} | ${variants.map(cell).join(" | ")} |`;
    }),
  ];
}
