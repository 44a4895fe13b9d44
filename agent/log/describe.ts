/** An error on one line, with its stack where it has one. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return error.stack
    ? `${error.message} at ${error.stack.trim().replaceAll(/\s*\n\s*/g, " < ")}`
    : error.message;
}
