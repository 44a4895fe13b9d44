import type { Clock } from "../platform/port.ts";

/** The boot of a stub domain, in order. Each name is what dom0 sees in xenstore and the log. */
export const phaseNames = [
  "init",
  "xenstore",
  "configuration",
  "frontends",
  "network",
  "qemu-start",
  "qemu-answers",
  "running",
] as const;
export type PhaseName = (typeof phaseNames)[number];

export interface PhaseTime {
  readonly phase: PhaseName;
  /** Milliseconds since the kernel booted at which the phase began. */
  readonly began: number;
}

/** Records when each phase began and tells listeners; phases come in order, each once. */
export class Phases {
  readonly times: PhaseTime[] = [];

  constructor(
    private readonly clock: Clock,
    private readonly entered: (time: PhaseTime) => void,
  ) {}

  get current(): PhaseName | undefined {
    return this.times.at(-1)?.phase;
  }

  /** `began` where the phase began before anybody could say so. */
  enter(phase: PhaseName, began = this.clock.now()): void {
    const expected = phaseNames[this.times.length];
    if (phase !== expected) throw new Error(`phase ${phase} entered where ${expected} was due`);
    const time = { phase, began };
    this.times.push(time);
    this.entered(time);
  }
}
