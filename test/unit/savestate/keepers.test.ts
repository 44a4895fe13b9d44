/** What keeps a guest from being saved. */

import { expect, test, vi } from "vitest";
import { QmpCommandError } from "../../../agent/qmp/errors.ts";
import { unlessKept } from "../../../agent/savestate/keepers.ts";

const keeper = (why?: string) => ({ keepsFromSaving: async () => why });

test("a command that nobody keeps is carried out", async () => {
  const log = { error: vi.fn() };
  const handler = unlessKept("save", async (args) => ({ saved: args }), [keeper(), keeper()], log);
  expect(await handler({ file: 1 })).toEqual({ saved: { file: 1 } });
  expect(log.error).not.toHaveBeenCalled();
});

test("one that is kept is refused with the first reason, which the log has once", async () => {
  const log = { error: vi.fn() };
  const carriedOut = vi.fn();
  const handler = unlessKept("save", carriedOut, [keeper(), keeper("a device"), keeper("a NIC")], log);
  const error = await handler({}).catch((caught: unknown) => caught);
  expect(error).toBeInstanceOf(QmpCommandError);
  expect(error).toMatchObject({ errorClass: "GenericError", message: expect.stringContaining("a device") });
  expect(log.error.mock.calls).toEqual([[{}, "save: a device"]]);
  expect(carriedOut).not.toHaveBeenCalled();
});
