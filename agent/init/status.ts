import type { ScreenCounters } from "../screen/counters.ts";
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
  /** The guest's screen in dom0, where there is one. */
  readonly screen?: { readonly shown: string; readonly counters: ScreenCounters };
  readonly error: string | undefined;
}

/** One PV device, as `stubdom devices` shows it. */
export interface DeviceStatus {
  readonly kind: string;
  /** For people: `disk hda`. */
  readonly name: string;
  /** Its Linux device, or why there is none. */
  readonly detail: string;
}
