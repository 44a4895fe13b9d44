import { spawnSync } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { describe, expect, it } from "vitest";

const program = "dist/stubdom";

function stubdom(...args: string[]) {
  return spawnSync(program, args, { encoding: "utf8", timeout: 10_000 });
}

describe("the compiled agent as a command line", () => {
  it("is static and at most 3.0 MB", () => {
    expect(statSync(program).size).toBeLessThanOrEqual(3_000_000);
    // No program header of type PT_INTERP (elf(5)): nothing loads it but the kernel.
    const elf = readFileSync(program);
    const [start, size, count] = [
      Number(elf.readBigUInt64LE(32)),
      elf.readUInt16LE(54),
      elf.readUInt16LE(56),
    ];
    const types = Array.from({ length: count }, (_, n) => elf.readUInt32LE(start + n * size));
    expect(types).toContain(1);
    expect(types).not.toContain(3);
  });

  it("explains itself to a stranger", () => {
    const { status, stdout } = stubdom("--help");
    expect(status).toBe(0);
    for (const command of ["status", "devices", "argv", "qmp", "xenstore", "log", "--json"]) {
      expect(stdout).toContain(command);
    }
  });

  it("tells its version", () => {
    const { version } = JSON.parse(spawnSync("cat", ["package.json"], { encoding: "utf8" }).stdout) as {
      version: string;
    };
    expect(stubdom("--version").stdout.trim()).toBe(version);
  });

  it.each([[["no-such-command"]], [[]], [["qmp"]], [["xenstore", "fly", "/"]]])(
    "answers bad usage %j with status 2 and words",
    (args) => {
      const { status, stderr } = stubdom(...args);
      expect(status).toBe(2);
      expect(stderr).toMatch(/^stubdom: /m);
    },
  );

  it("names the remedy where no agent runs", () => {
    const { status, stderr } = stubdom("status");
    expect(status).toBe(1);
    expect(stderr).toContain("stubdom.shell=1");
  });
});
