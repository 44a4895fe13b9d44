/** Knows something of the guest that no state holds. */
export interface Keeper {
  /** Why the guest cannot be saved, and what to do; `undefined` where it can. */
  keepsFromSaving(): Promise<string | undefined>;
}

/** The first reason of `keepers` not to save the guest; `undefined` where there is none. */
export async function whyKept(keepers: readonly Keeper[]): Promise<string | undefined> {
  for (const keeper of keepers) {
    const why = await keeper.keepsFromSaving();
    if (why !== undefined) return why;
  }
  return undefined;
}
