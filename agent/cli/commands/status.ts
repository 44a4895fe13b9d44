import type { StubdomStatus } from "../../init/status.ts";
import { ask } from "../ask.ts";
import { type Command, table } from "../command.ts";

export const status: Command = {
  usage: "status",
  summary: "What this stub domain is doing: phase, target, QEMU, memory, the last error",
  run: (platform) => ask(platform, { ask: "status" }),
  render(result) {
    const s = result as StubdomStatus;
    const began = s.phases[0]?.began ?? 0;
    return table([
      ["version", s.version],
      ["domain", `${s.domid} serves ${s.target ?? "?"}`],
      ["phase", s.phase ?? "none"],
      ["phases", s.phases.map((p) => `${p.phase} +${(p.began - began).toFixed(1)} ms`).join(", ")],
      [
        "qemu",
        s.qemu.pid === undefined ? "not running" : `pid ${s.qemu.pid}, peak ${s.qemu.peakKib ?? "?"} KiB`,
      ],
      ["memory", `${s.memory.available} of ${s.memory.total} KiB available, least ${s.memory.least} KiB`],
      ...(s.screen === undefined ? [] : [["screen", screenLine(s.screen)] as const]),
      ["error", s.error ?? "none"],
    ]);
  },
};

function screenLine({ shown, counters }: NonNullable<StubdomStatus["screen"]>): string {
  const { updates, pixels, keys, pointerMoves } = counters;
  const copied = `${updates} updates, ${(pixels / 1e6).toFixed(1)} million pixels`;
  return `${shown}; ${copied}; ${keys} key events, ${pointerMoves} of the pointer`;
}
