/** Why the stub domain cannot serve its guest: what is wrong, with the value, and what to do about it. */
export class BootError extends Error {
  override readonly name = "BootError";
  constructor(problem: string, remedy: string) {
    super(`${problem}; ${remedy}`);
  }
}
