import { defineConfig } from "vitest/config";

const minute = 60_000;

/** One project for each kind of proof: pure logic, the compiled program, the real thing on the emulated host. */
export default defineConfig({
  test: {
    projects: [
      { test: { name: "unit", include: ["test/unit/**/*.test.ts"] } },
      {
        test: {
          name: "binary",
          include: ["test/binary/**/*.test.ts"],
          testTimeout: 30_000,
          fileParallelism: false,
        },
      },
      {
        // Real time matters there, and one emulated host fills two cores: one file after the other.
        test: {
          name: "xen",
          include: ["test/xen/**/*.test.ts"],
          testTimeout: 20 * minute,
          hookTimeout: 10 * minute,
          fileParallelism: false,
        },
      },
    ],
  },
});
