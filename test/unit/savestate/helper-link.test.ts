import { expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { TransferError } from "../../../agent/savestate/errors.ts";
import { HelperAbsent, HelperLink } from "../../../agent/savestate/helper-link.ts";
import type { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { XenstoreError } from "../../../agent/xenstore/errors.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";

/** A link whose helper is the test: what it is asked, and its answer to the last question. */
function linked(clock: FakeClock) {
  const written: string[] = [];
  let fire = () => {};
  let answered = "0 absent";
  const store = {
    watch: async (_: string, changed: () => void) => {
      fire = changed;
      return { stop: async () => {} };
    },
    write: async (_: string, value: string) => void written.push(value),
    read: async () => encodeText(answered),
  } as unknown as XenstoreClient;
  const answer = (words: string): void => {
    answered = `1 ${written.at(-1)?.split(" ")[1]} ${words}`;
    fire();
  };
  return { link: new HelperLink(store, clock, silentLogger, 5, 4), written, answer };
}

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

test("a new question ends the one under way, whose silence then concerns nobody", async () => {
  const clock = new FakeClock();
  const { link, written, answer } = linked(clock);
  const growing = link.ask({ verb: "grow", bytes: 1 << 20 }, "grown");
  await settle();
  const releasing = link.ask({ verb: "release" }, "released");
  await expect(growing).rejects.toThrow('"release" came before');
  await settle();
  await clock.advance(2_000);
  answer("released");
  expect(await releasing).toMatchObject({ outcome: "released" });
  await clock.advance(20_000);
  expect(written.map((request) => request.split(" ")[2])).toEqual(["grow", "release"]);
  expect(clock.pending).toBe(0);
});

test("a helper that has answered is given longer, and is not absent", async () => {
  const clock = new FakeClock();
  const { link, answer } = linked(clock);
  const attaching = link.ask({ verb: "save", bytes: 1 << 20 }, "attached");
  await settle();
  answer("attached 268614912 1048576");
  await attaching;
  const growing = link.ask({ verb: "grow", bytes: 1 << 21 }, "grown");
  await clock.advance(9_000);
  answer("grown 2097152");
  await growing;
  const commit = link.ask({ verb: "commit", bytes: 1000 }, "placed").catch((error: unknown) => error);
  await clock.advance(10_000);
  const error = await commit;
  expect(error).toBeInstanceOf(TransferError);
  expect(error).not.toBeInstanceOf(HelperAbsent);
  link.close();
  const later = link.ask({ verb: "save", bytes: 1 << 20 }, "attached").catch((error: unknown) => error);
  await clock.advance(3_000);
  expect(await later).toBeInstanceOf(HelperAbsent);
});
