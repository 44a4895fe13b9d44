import { defineConfig } from "vitest/config";
import { cacheDir } from "./bundler/cache.ts";

const minute = 60_000;
const onXen = {
  testTimeout: 30 * minute,
  hookTimeout: 30 * minute,
  setupFiles: ["test/xen/emulator.ts"],
};
/** Not run but with `scripts/test --full`: too long for every run, or with too little time on a machine that is busy. */
const full = "test/xen/**/*.full.test.ts";
const short = process.env.LINUX_STUBDOM_FULL === undefined;
const skipped = short ? [full] : [];
/** These measure time: for figures they need the machine to themselves. */
const alone = short ? [full] : ["test/xen/create.test.ts", full];

/** One project for each kind of proof: pure logic, the compiled program, the real thing on the emulated host. */
export default defineConfig({
  // How long each file took: the longest is begun first, so that two emulated hosts end at about the same time.
  cacheDir: cacheDir(),
  test: {
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"], testTimeout: 60_000 } },
      {
        test: {
          name: "binary",
          include: ["test/binary/**/*.test.ts"],
          testTimeout: 30_000,
          fileParallelism: false,
        },
      },
      // Real time matters on the emulated host, and one fills the two cores that there may be. What is there to
      // measure time has them for itself; of other files two at a time take less long than one after the other
      // (scripts/test has one at a time where the machine is slow).
      {
        test: {
          ...onXen,
          name: "xen-alone",
          include: alone,
          exclude: skipped,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...onXen,
          name: "xen",
          include: ["test/xen/**/*.test.ts"],
          exclude: alone,
          maxWorkers: Number(process.env.LINUX_STUBDOM_HOSTS ?? 2),
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
