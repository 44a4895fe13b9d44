import { expect, test } from "vitest";
import { silentLogger } from "../../../agent/log/logger.ts";
import { HelperAbsent, HelperLink } from "../../../agent/savestate/helper-link.ts";
import type { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { XenstoreError } from "../../../agent/xenstore/errors.ts";
import { FakeClock } from "../../fakes/clock.ts";

test("what was withdrawn before xenstored had set the watch is not asked afterwards", async () => {
  const clock = new FakeClock();
  const written: string[] = [];
  const store = {
    watch: () => new Promise((resolve) => clock.setTimer(3_500, () => resolve({ stop: async () => {} }))),
    write: async (_: string, value: string) => void written.push(value),
    read: (path: string) => Promise.reject(new XenstoreError("ENOENT", "read", path)),
  } as unknown as XenstoreClient;
  const link = new HelperLink(store, clock, silentLogger, 5, 4);
  const asked = link.ask({ verb: "save", bytes: 1 << 20 }, "attached");
  asked.catch(() => {});
  await clock.advance(10_000);
  await expect(asked).rejects.toThrow(HelperAbsent);
  expect(written).toEqual([expect.stringMatching(/^1 \d+ release$/)]);
  expect(clock.pending).toBe(0);
});
