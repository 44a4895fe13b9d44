/** Why a run broke, in one line that fits below a table. Pure. */

/** `libxl: error: libxl_dm.c:12:function: Domain 4:text` and `xc: error: panic: xg_dom.c:12: text`: the text is for people. */
const SAID = /^(?:libxl|xc): error: (?:panic: )?(?:[\w.-]+:\d+: ?(?:\w+: ?)?)?(?:Domain \d+: ?)?(.+)$/;

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
