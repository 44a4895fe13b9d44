import type { PhaseName, PhaseTime } from "./phases.ts";

/** What `stubdom status` shows. */
export interface StubdomStatus {
  readonly version: string;
  readonly domid: number;
  readonly target: number | undefined;
  readonly phase: PhaseName | undefined;
  readonly phases: readonly PhaseTime[];
  readonly qemu: { readonly pid?: number; readonly peakKib?: number };
  /** KiB. */
  readonly memory: { readonly total: number; readonly available: number; readonly least: number };
  readonly error: string | undefined;
}
