/**
 * The results of one benchmark as they are kept: `results.json`, whose schema docs/bench.md explains. What is
 * read back is checked whole, because it may be years old or edited.
 */
import { MEASURES } from "./measures.ts";
import { type Summary, summarize } from "./statistics.ts";
import { VARIANT_NAMES, type VariantName } from "./variants.ts";

export const SCHEMA = 1;

/** Why a variant has no figure here. */
export interface Absent {
  readonly absent: string;
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
    if (!Number.isFinite(value)) throw new RangeError(`${id} of ${variant} is ${value}`);
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

  results(about: Omit<Results, "schema" | "figures" | "troubles">): Results {
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
  const figure = (value: unknown, place: string): Figure => {
    const each = object(value, place);
    if ("absent" in each) return { absent: string(each.absent, `${place}.absent`) };
    const runs = list(each.runs, `${place}.runs`).map((run, index) => number(run, `${place}.runs[${index}]`));
    if (runs.length === 0) return wrong(`${place}.runs`, "is empty");
    // Not what the file says: it follows from the runs.
    return summarize(runs);
  };
  const figures = Object.entries(object(top.figures, "figures")).map(([id, row]) => {
    const cells = Object.entries(object(row, `figures.${id}`)).map(([name, value]) => [
      variant(name, `figures.${id}`),
      figure(value, `figures.${id}.${name}`),
    ]);
    return [id, Object.fromEntries(cells)];
  });
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
      icount: host.icount === true,
    },
    settings: Object.fromEntries(settings),
    variants: list(top.variants, "variants").map((name, index) => variant(name, `variants[${index}]`)),
    order: list(top.order, "order").map((round, index) =>
      list(round, `order[${index}]`).map((name) => variant(name, `order[${index}]`)),
    ),
    figures: Object.fromEntries(figures),
    troubles: list(top.troubles, "troubles").map((each, index) => string(each, `troubles[${index}]`)),
  };
}
