/**
 * Guests and hosts that the emulated processor killed, which says nothing about this project: QEMU's emulated SVM now
 * and then entered a guest with Xen's own registers (Xen then tells of a triple fault at an address of its own). The cause
 * that is known has been dealt with (`dom0/init`); should there be another, each fault is kept as a file and told of at
 * the end, and nothing is done again in silence.
 */

import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { PROJECT } from "../../bundler/paths.ts";

/** One file for each fault that something was done again for. */
export const emulatorFaults = join(PROJECT, "dist/test/emulator-faults");

const seen = new Set<string>();

/** A line of Xen's console that tells of a fault; the hosts of this process report them. */
export function sawFault(line: string): void {
  seen.add(line);
}

/** The faults that nobody has dealt with yet. */
export function openFaults(): readonly string[] {
  return [...seen];
}

/** Whoever waited for the guest starts it anew, and keeps the evidence. */
export function dealtWithFaults(): void {
  seen.clear();
}

/** Keeps the evidence as `<name>.log`. */
export function keepFault(name: string, evidence: string): void {
  mkdirSync(emulatorFaults, { recursive: true });
  writeFileSync(join(emulatorFaults, `${name}.log`), evidence);
}
