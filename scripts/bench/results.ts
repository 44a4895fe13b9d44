/**
 * The results of one benchmark as they are kept: `results.json`, whose schema docs/bench.md explains. What is
 * read back is checked whole, because it may be years old or edited.
 */
import { MEASURES, type Measure } from "./measures.ts";
import { type Summary, summarize } from "./statistics.ts";
import { type Described, described } from "./units.ts";
import { VARIANT_NAMES, type VariantName } from "./variants.ts";

export const SCHEMA = 1;

/** Why a variant has no figure here. */
export interface Absent {
  readonly absent: string;
}

/** A measure as the file has it, which may be of when that measured something else; this version's where it says nothing. */
export function describedIn({ measures, host }: Results, each: Measure): Described {
  return measures?.[each.id] ?? described(each, host.icount);
}

export type Figure = Summary | Absent;

export interface HostFacts {
  /** The emulated host, or a machine of its own. */
  readonly kind: "lab" | "local";
  readonly xen: string;
  readonly dom0: string;
  /** Processor and number of cores of the machine that all runs on. */
  readonly machine: string;
  /** Emulated time follows executed instructions: the same input gives the same figures. */
  readonly icount: boolean;
}

export interface Results {
  readonly schema: typeof SCHEMA;
  /** When it was made, ISO 8601. */
  readonly made: string;
  readonly commit: string;
  readonly host: HostFacts;
  /** What all variants have in common: `controller`, `guestMemory`, `idleSeconds`... */
  readonly settings: Readonly<Record<string, string | number | boolean>>;
  readonly variants: readonly VariantName[];
  /** The variants of each round, in their order. */
  readonly order: readonly (readonly VariantName[])[];
  /** What the figures are, by measure, for who reads the file alone: writeAll() puts it there. Old files have none. */
  readonly measures?: Readonly<Record<string, Described>>;
  /** By measure, then by variant. */
  readonly figures: Readonly<Record<string, Readonly<Partial<Record<VariantName, Figure>>>>>;
  /** What went wrong on the way: a run that had to be left out is named here. */
  readonly troubles: readonly string[];
}

export function isAbsent(figure: Figure): figure is Absent {
  return "absent" in figure;
}

/** Collects single figures in any order, and makes the results of them. */
export class Recorder {
  readonly #runs = new Map<string, number[]>();
  readonly #absent = new Map<string, string>();
  readonly #troubles: string[] = [];

  add(variant: VariantName, id: string, value: number): void {
    checkMeasure(id);
    if (!Number.isFinite(value) || impossible(id, value))
      throw new RangeError(`${id} of ${variant} is ${value}`);
    const key = `${id} ${variant}`;
    const runs = this.#runs.get(key);
    if (runs === undefined) this.#runs.set(key, [value]);
    else runs.push(value);
  }

  /** A figure, once there is one, counts more. */
  absent(variant: VariantName, id: string, reason: string): void {
    checkMeasure(id);
    this.#absent.set(`${id} ${variant}`, reason);
  }

  trouble(text: string): void {
    this.#troubles.push(text);
  }

  /** What another recorder holds, which is a run that did not break. */
  take(other: Recorder): void {
    for (const [key, values] of other.#runs) this.#runs.set(key, [...(this.#runs.get(key) ?? []), ...values]);
    for (const [key, reason] of other.#absent) this.#absent.set(key, reason);
    this.#troubles.push(...other.#troubles);
  }

  results(about: Omit<Results, "schema" | "measures" | "figures" | "troubles">): Results {
    const figures: Record<string, Partial<Record<VariantName, Figure>>> = {};
    for (const { id } of MEASURES) {
      const row: Partial<Record<VariantName, Figure>> = {};
      for (const variant of about.variants) {
        const key = `${id} ${variant}`;
        const runs = this.#runs.get(key);
        const reason = this.#absent.get(key);
        if (runs !== undefined) row[variant] = summarize(runs);
        else if (reason !== undefined) row[variant] = { absent: reason };
      }
      if (Object.keys(row).length > 0) figures[id] = row;
    }
    return { schema: SCHEMA, ...about, figures, troubles: this.#troubles };
  }
}

function checkMeasure(id: string): void {
  if (!MEASURES.some((each) => each.id === id)) throw new RangeError(`no measure ${id}`);
}

/** What a further guest adds; noise may take it below zero. All else is something or nothing. */
const slopes = ["density.time", "density.memory"];

function impossible(id: string, value: number): boolean {
  return value < 0 && !slopes.includes(id);
}

/** Of a number that was written and read again, or in another order of adding. */
const rounding = 1e-6;

/** A file that holds no results; the message says where and what. */
export class ResultsError extends Error {
  override readonly name = "ResultsError";
}

type Json = Readonly<Record<string, unknown>>;

/** Reads what {@link Recorder.results} made. Measures that we do not know any more are kept. */
export function parseResults(text: string, file: string): Results {
  const wrong = (place: string, what: string): never => {
    throw new ResultsError(`${file}: ${place} ${what}; make it anew with npm run bench`);
  };
  const object = (value: unknown, place: string): Json =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Json)
      : wrong(place, "is no object");
  const list = (value: unknown, place: string): readonly unknown[] =>
    Array.isArray(value) ? value : wrong(place, "is no list");
  const string = (value: unknown, place: string): string =>
    typeof value === "string" ? value : wrong(place, "is no text");
  const number = (value: unknown, place: string): number =>
    typeof value === "number" && Number.isFinite(value) ? value : wrong(place, "is no number");
  const variant = (value: unknown, place: string): VariantName =>
    VARIANT_NAMES.find((name) => name === value) ?? wrong(place, `is no variant: ${JSON.stringify(value)}`);

  let parsed: unknown;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    return wrong("the file", `is no JSON (${error instanceof Error ? error.message : error})`);
  }
  const top = object(parsed, "the file");
  if (top.schema !== SCHEMA)
    return wrong("schema", `is ${JSON.stringify(top.schema)}, this version reads ${SCHEMA}`);
  const host = object(top.host, "host");
  const kind = string(host.kind, "host.kind");
  const icount = host.icount === true;
  const figure = (value: unknown, id: string, name: string): Figure => {
    const place = `figures.${id}.${name}`;
    const each = object(value, place);
    if ("absent" in each) return { absent: string(each.absent, `${place}.absent`) };
    const runs = list(each.runs, `${place}.runs`).map((run, index) => {
      const measured = number(run, `${place}.runs[${index}]`);
      return impossible(id, measured)
        ? wrong(`${place}.runs[${index}]`, `is ${measured}, less than nothing`)
        : measured;
    });
    if (runs.length === 0) return wrong(`${place}.runs`, "is empty");
    const summary = summarize(runs);
    for (const key of ["median", "q1", "q3"] as const) {
      if (each[key] === undefined) continue;
      const said = number(each[key], `${place}.${key}`);
      if (Math.abs(said - summary[key]) > rounding * Math.abs(summary[key]))
        return wrong(
          `${place}.${key}`,
          `is ${said}, but ${summary[key]} by its runs: take back what was edited`,
        );
    }
    return summary;
  };
  const figures = Object.entries(object(top.figures, "figures")).map(([id, row]) => {
    const cells = Object.entries(object(row, `figures.${id}`)).map(([name, value]) => [
      variant(name, `figures.${id}`),
      figure(value, id, name),
    ]);
    return [id, Object.fromEntries(cells)];
  });
  const about = (value: unknown, id: string): Described => {
    const place = `measures.${id}`;
    const { title, unit, better, counted } = object(value, place);
    const said: Described = {
      title: string(title, `${place}.title`),
      unit: string(unit, `${place}.unit`),
      better:
        better === "less" || better === "more" ? better : wrong(`${place}.better`, "is not less or more"),
      counted: typeof counted === "boolean" ? counted : wrong(`${place}.counted`, "is neither yes nor no"),
    };
    const known = MEASURES.find((each) => each.id === id);
    const ours = known === undefined ? said : described(known, icount);
    for (const key of ["unit", "better"] as const)
      if (said[key] !== ours[key])
        return wrong(`${place}.${key}`, `is ${said[key]}, in this version ${ours[key]}`);
    return said;
  };
  const measures = Object.entries(object(top.measures ?? {}, "measures")).map(([id, value]) => [
    id,
    about(value, id),
  ]);
  const settings = Object.entries(object(top.settings, "settings")).map(([key, value]) => {
    if (typeof value === "string" || typeof value === "number" || typeof value === "boolean")
      return [key, value];
    return wrong(`settings.${key}`, "is neither text, number nor yes or no");
  });
  return {
    schema: SCHEMA,
    made: string(top.made, "made"),
    commit: string(top.commit, "commit"),
    host: {
      kind: kind === "lab" || kind === "local" ? kind : wrong("host.kind", `is ${kind}, not lab or local`),
      xen: string(host.xen, "host.xen"),
      dom0: string(host.dom0, "host.dom0"),
      machine: string(host.machine, "host.machine"),
      icount,
    },
    settings: Object.fromEntries(settings),
    variants: list(top.variants, "variants").map((name, index) => variant(name, `variants[${index}]`)),
    order: list(top.order, "order").map((round, index) =>
      list(round, `order[${index}]`).map((name) => variant(name, `order[${index}]`)),
    ),
    ...(measures.length > 0 && { measures: Object.fromEntries(measures) }),
    figures: Object.fromEntries(figures),
    troubles: list(top.troubles, "troubles").map((each, index) => string(each, `troubles[${index}]`)),
  };
}
