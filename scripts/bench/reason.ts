/** Why a run broke, in one line that fits below a table. Pure. */

/** `libxl: error: libxl_dm.c:123:function: Domain 4:text`, of which the text is for people. */
const SAID =
  /^(?:libxl|xc|libxl-save-helper|xenlight): error: (?:[\w.-]+:\d+:(?:\w+: ?)?)?(?:Domain \d+: ?)?(.+)$/;

/**
 * The first line of what was thrown, and where Xen's tools say what is wrong, their first error: what they say later
 * follows from it.
 */
export function reasonOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  const [first = "", ...rest] = text.split("\n");
  const said = rest.map((line) => SAID.exec(line.trim())?.[1]).find((line) => line !== undefined);
  return said === undefined ? first.replace(/; [^;]*:$/, "") : `${first}: ${said}`;
}
