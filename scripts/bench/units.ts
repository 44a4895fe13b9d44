/** What a measure is called and what it is in, for files, tables and pictures. Pure. */
import type { Measure } from "./measures.ts";
import type { Better } from "./statistics.ts";

/** What `results.json` says of each measure that it has. */
export interface Described {
  readonly title: string;
  readonly unit: string;
  readonly better: Better;
  readonly counted: boolean;
}

/** With --icount a nanosecond is an instruction. */
const instructions: Readonly<Record<string, string>> = { ns: "instructions", µs: "thousand instructions" };

/** @param icount where what is counted is instructions, and the mean of the lowest nine tenths in place of a median */
export function described({ title, unit, better, counted = false }: Measure, icount: boolean): Described {
  if (!(icount && counted)) return { title, unit, better, counted };
  return {
    title: title.replace(/\bmedian$/, "mean of the lowest 90 %"),
    unit: instructions[unit] ?? unit,
    better,
    counted,
  };
}
