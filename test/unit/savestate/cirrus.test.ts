/** A Cirrus card whose state QEMU could not read back. */

import { expect, test } from "vitest";
import type { QmpClient } from "../../../agent/qmp/client.ts";
import { CirrusKeeper } from "../../../agent/savestate/cirrus.ts";

/** As QEMU 10.0 answers, less what is of no account here. */
const memory = (...lines: string[]) =>
  [
    "FlatView #1",
    ' AS "memory", root: system',
    ' AS "cpu-memory-0", root: system',
    " Root memory region: system",
    "  0000000000000000-000000000009ffff (prio 0, ram): xen.ram",
    "  00000000000a0000-00000000000bffff (prio 0, i/o): cirrus-low-memory",
    ...lines,
    "  00000000f1000000-00000000f13fffff (prio 0, i/o): cirrus-bitblt-mmio",
    "",
  ].join("\r\n");

const saved = (answer: string | number) => {
  const asked: unknown[] = [];
  const qmp: Pick<QmpClient, "execute"> = {
    execute: async (...words) => {
      asked.push(words.slice(0, 2));
      return answer;
    },
  };
  return { why: new CirrusKeeper(qmp).keepsFromSaving(), asked };
};

test("is saved while its memory is the guest's, or it has no place yet", async () => {
  const { why, asked } = saved(memory("  00000000f0000000-00000000f07fffff (prio 1, ram): vga.vram"));
  expect(await why).toBeUndefined();
  expect(asked).toEqual([["human-monitor-command", { "command-line": "info mtree -f" }]]);
  expect(await saved(memory()).why).toBeUndefined();
});

test("is not while each access is its own affair, and the reason says what to do", async () => {
  const drawing = memory("  00000000f0000000-00000000f07fffff (prio 0, i/o): cirrus-linear-io");
  expect(await saved(drawing).why).toMatch(/Cirrus card, and no QEMU could restore that; save it again/);
});

test("what is no text is an error", async () => {
  await expect(saved(7).why).rejects.toThrow("the answer is no text");
});
