import { defineConfig } from "vitest/config";

// Each project is one kind of proof: pure logic, the compiled program, the real thing on the emulated host.
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
    ],
  },
});
