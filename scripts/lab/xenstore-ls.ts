/** What `xenstore-ls -f` prints: one `path = "value"` a line. */

const ESCAPES: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t" };

/** A value as it is in the store; `xenstore-ls` escapes what is not printable, each byte on its own. */
function unescaped(text: string): string {
  const bytes = text.replace(/\\(x[0-9a-f]{2}|[0-7]{1,3}|.)/g, (_, code: string) => {
    if (code.startsWith("x")) return String.fromCharCode(Number.parseInt(code.slice(1), 16));
    if (/^[0-7]/.test(code)) return String.fromCharCode(Number.parseInt(code, 8));
    return ESCAPES[code] ?? code;
  });
  return Buffer.from(bytes, "latin1").toString();
}

/** Path -> value, in the order of the listing. Lines of another form (none are known) are left out. */
export function parseXenstoreLs(listing: string): Record<string, string> {
  const entries: [string, string][] = [];
  for (const line of listing.split("\n")) {
    const found = /^(\/\S*) = "(.*)"\s*(?:\(.*\))?$/.exec(line);
    if (found?.[1] !== undefined && found[2] !== undefined) entries.push([found[1], unescaped(found[2])]);
  }
  return Object.fromEntries(entries);
}
