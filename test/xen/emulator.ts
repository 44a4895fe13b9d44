/**
 * For every test file of the emulated host: one during which the emulated processor killed a guest or the host leaves
 * a file that says so, named after it. Where it has failed as well, scripts/test runs it again, once, and tells.
 */

import { basename } from "node:path";
import { afterAll, expect } from "vitest";
import { keepFault, openFaults } from "../../scripts/lab/emulator-faults.ts";

afterAll(() => {
  const faults = openFaults();
  if (faults.length > 0)
    keepFault(basename(expect.getState().testPath ?? "unknown"), `${faults.join("\n")}\n`);
});
