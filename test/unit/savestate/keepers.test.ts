/** What keeps a guest from being saved. */

import { expect, test } from "vitest";
import { whyKept } from "../../../agent/savestate/keepers.ts";

const keeper = (why?: string) => ({ keepsFromSaving: async () => why });

test("nobody keeps it", async () => {
  expect(await whyKept([])).toBeUndefined();
  expect(await whyKept([keeper(), keeper()])).toBeUndefined();
});

test("the first reason counts", async () => {
  expect(await whyKept([keeper(), keeper("a device"), keeper("a NIC")])).toBe("a device");
});
