import { type Figure, Recorder, type Results } from "../../../scripts/bench/results.ts";
import type { VariantName } from "../../../scripts/bench/variants.ts";

export const about = {
  made: "2026-01-02T03:04:05.000Z",
  commit: "abc1234",
  host: {
    kind: "lab",
    xen: "Xen 4.20.0",
    dom0: "Linux 6.12, QEMU 10.0",
    machine: "a processor, 2 cores",
    icount: false,
  },
  settings: { controller: "ahci", guestMemory: 64, quick: false },
  variants: ["dom0", "linux-stubdom", "shell-stubdom"],
  order: [["dom0", "linux-stubdom", "shell-stubdom"]],
} as const satisfies Omit<Results, "schema" | "figures" | "troubles">;

/** Results with these runs, by measure and variant. */
export function results(
  figures: Readonly<Record<string, Partial<Record<VariantName, readonly number[] | string>>>>,
  changed: Partial<Results> = {},
): Results {
  const recorder = new Recorder();
  for (const [id, row] of Object.entries(figures)) {
    for (const [name, runs] of Object.entries(row)) {
      const variant = name as VariantName;
      if (typeof runs === "string") recorder.absent(variant, id, runs);
      else for (const run of runs) recorder.add(variant, id, run);
    }
  }
  return { ...recorder.results(about), ...changed };
}

export const example = results({
  "access.port": { dom0: [10, 12, 11], "linux-stubdom": [22, 20, 24], "shell-stubdom": [25] },
  "access.mmio": { dom0: [8], "linux-stubdom": [16], "shell-stubdom": "no NIC <there> & never" },
  "disk.seq-read": { dom0: [50, 52], "linux-stubdom": [26, 25] },
  "start.agent": {
    dom0: "there is no stub domain",
    "linux-stubdom": [1.5],
    "shell-stubdom": "there is no stub domain",
  },
});

export type { Figure };
