import { parseCommandLine } from "./command-line.ts";
import { type Config, type FieldName, fields } from "./fields.ts";

/** A setting that was not taken as written: it stays at what the weaker source, or the default, says. */
export interface ConfigWarning {
  readonly source: "command line" | "stubdom.ini";
  readonly key: string;
  readonly value: string;
  /** One sentence: what is wrong and what is allowed. */
  readonly message: string;
}

export interface ConfigResult {
  readonly config: Config;
  readonly warnings: readonly ConfigWarning[];
}

/** What the kernel's command line puts before each key, so that kernel and agent share one line. */
const prefix = "stubdom.";

type Setting = readonly [key: string, value: string];

/**
 * The configuration: the kernel's command line over the ini file over the defaults. Never rejects: a stubdom
 * with a wrong setting still starts, and says so.
 *
 * @param commandLine contents of /proc/cmdline
 * @param ini contents of /etc/stubdom.ini, empty when there is none
 */
export async function resolveConfig(commandLine: string, ini: string): Promise<ConfigResult> {
  const settings = new Map<FieldName, unknown>();
  const warnings: ConfigWarning[] = [];
  take("stubdom.ini", await iniSettings(ini), settings, warnings);
  take("command line", commandLineSettings(commandLine), settings, warnings);
  const config = Object.fromEntries(
    Object.entries(fields).map(([name, field]) => [name, settings.get(name as FieldName) ?? field.fallback]),
  );
  return { config: Object.freeze(config) as Config, warnings };
}

/** The key of a field as it is written outside: `frontendDeadline` is `frontend_deadline`. */
export function keyOf(name: FieldName): string {
  return name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** The text of /etc/stubdom.ini as the image has it: every key, explained and commented out. */
export function documentedIni(): string {
  const entries = Object.entries(fields).map(([name, field]) => {
    const key = keyOf(name as FieldName);
    return `; ${field.help}\n; Allowed: ${field.allowed}\n;${key} = ${field.write(field.fallback as never)}\n`;
  });
  return `${iniHead}\n${entries.join("\n")}`;
}

const iniHead = `; Settings of the stub domain's agent. What is commented out shows the default.
; The kernel's command line (stubdomain_cmdline= of the guest) wins: there, write stubdom.KEY=VALUE.
`;

function take(
  source: ConfigWarning["source"],
  given: readonly Setting[],
  settings: Map<FieldName, unknown>,
  warnings: ConfigWarning[],
): void {
  if (given.length === 0) return;
  const names = new Map(Object.keys(fields).map((name) => [keyOf(name as FieldName), name as FieldName]));
  for (const [key, value] of given) {
    const warn = (message: string) =>
      warnings.push({
        source,
        key: shortened(key),
        value: shortened(value),
        message: `${source}: ${message}`,
      });
    // As in the kernel's own parameters, "-" and "_" are one.
    const name = names.get(key.replaceAll("-", "_"));
    if (name === undefined) {
      warn(`unknown setting "${shortened(key)}"; known are ${[...names.keys()].join(", ")}`);
      continue;
    }
    const parsed = fields[name].parse(value);
    if (parsed !== undefined) settings.set(name, parsed);
    else warn(`"${shortened(value)}" is no value for ${key}; allowed: ${fields[name].allowed}`);
  }
}

function shortened(text: string): string {
  return text.length > 60 ? `${text.slice(0, 60)}...` : text;
}

function commandLineSettings(commandLine: string): Setting[] {
  // As a rule there is nothing for the agent in it.
  if (!commandLine.includes(prefix)) return [];
  return parseCommandLine(commandLine)
    .filter(({ key }) => key.startsWith(prefix))
    .map(({ key, value }) => [key.slice(prefix.length), value ?? "1"]);
}

/** Whether all lines of `text` are empty or begin with a semicolon. */
function isComment(text: string): boolean {
  if (text.includes("\r")) return false;
  for (let at = 0; at < text.length; at = text.indexOf("\n", at) + 1 || text.length) {
    const first = text.charCodeAt(at);
    if (first !== 0x3b && first !== 0x0a) return false;
  }
  return true;
}

async function iniSettings(text: string): Promise<Setting[]> {
  // The image's own is comments from end to end: a boot need not load what would parse them.
  if (isComment(text)) return [];
  const { parse } = await import("./ini.ts");
  return Object.entries(parse(text)).map(([key, value]) => [
    key,
    // A section or a list is no value of any field, so it is reported like any other wrong value.
    typeof value === "object" && value !== null ? "(section)" : String(value),
  ]);
}
