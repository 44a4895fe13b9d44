/** The results for people: one Markdown table a group, with the cost against the reference. Pure. */
import { GROUPS, type Group, MEASURES } from "./measures.ts";
import { isAbsent, type Results } from "./results.ts";
import { cost } from "./statistics.ts";
import { REFERENCE, VARIANTS, type VariantName } from "./variants.ts";

/** Three digits that count, as people write them: `0.0123`, `4.56`, `789`, `12300`. */
export function shortNumber(value: number): string {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return digits > 8 ? value.toExponential(2) : value.toFixed(digits);
}

export function markdown(results: Results): string {
  const notes: string[] = [];
  const note = (text: string): string => {
    const at = notes.indexOf(text);
    return `[${at < 0 ? notes.push(text) : at + 1}]`;
  };
  const tables = (Object.keys(GROUPS) as Group[]).flatMap((group) => groupTable(results, group, note));
  const { host } = results;
  const clock = host.icount
    ? "Time follows executed instructions: a second is a thousand million of them. A median is the mean of the lowest nine tenths here."
    : "Time is real time.";
  return [
    `Made ${results.made.slice(0, 10)} of ${results.commit}, on ${host.kind === "lab" ? "the emulated host" : "a Xen host"}: ` +
      `${host.xen}, dom0 ${host.dom0}, ${host.machine}. ${clock}`,
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
    ...rows.map(({ id, title, unit, better }) => {
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
      const counts = variants.flatMap((name) => {
        const figure = row[name];
        return figure === undefined || isAbsent(figure) ? [] : [figure.runs.length];
      });
      const runs =
        counts.length === 0 ? "" : [...new Set([Math.min(...counts), Math.max(...counts)])].join(" to ");
      const arrow = better === "less" ? "less is better" : "more is better";
      return `| ${title} | ${unit}, ${arrow} | ${runs} | ${variants.map(cell).join(" | ")} |`;
    }),
  ];
}
