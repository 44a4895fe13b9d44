export interface KernelParameter {
  readonly key: string;
  /** `undefined` without `=`. */
  readonly value: string | undefined;
}

/**
 * The kernel's command line cut up as the kernel does it (Linux, lib/cmdline.c, `next_arg`): white space
 * separates, unless between double quotes; a quote at the start of a parameter or of its value is dropped
 * together with one at the end. What follows a lone `--` is for init, and not a parameter.
 */
export function parseCommandLine(text: string): KernelParameter[] {
  const parameters: KernelParameter[] = [];
  for (const [word] of text.matchAll(/(?:[^\s"]|"[^"]*(?:"|$))+/g)) {
    if (word === "--") break;
    parameters.push(parseParameter(word));
  }
  return parameters;
}

function parseParameter(word: string): KernelParameter {
  const whole = unquote(word);
  const equals = whole.indexOf("=");
  if (equals < 0) return { key: whole, value: undefined };
  return { key: whole.slice(0, equals), value: unquote(whole.slice(equals + 1)) };
}

function unquote(text: string): string {
  return text.startsWith('"') ? text.slice(1, text.length > 1 && text.endsWith('"') ? -1 : undefined) : text;
}
