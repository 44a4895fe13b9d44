import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";

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

  describe("state files", () => {
    const golden = "test/golden/savestate/two-states.disk";
    const directory = mkdtempSync(join(tmpdir(), "stubdom-cli-"));
    afterAll(() => rmSync(directory, { recursive: true }));

    it("inspects one, and extracts what is in it", () => {
      const inspected = stubdom("dom0", "inspect", "--json", golden);
      expect(inspected.status).toBe(0);
      expect(JSON.parse(inspected.stdout)).toMatchObject({
        kind: "state disk",
        whole: true,
        bytes: 5000,
        sequence: 2,
      });
      const to = join(directory, "state");
      expect(stubdom("dom0", "extract", golden, to)).toMatchObject({ status: 0, stdout: "5000 bytes\n" });
      expect(statSync(to).size).toBe(5000);
    });

    it("refuses one that was changed, with offset and reason, and leaves nothing", () => {
      const harmed = join(directory, "harmed.disk");
      const bytes = readFileSync(golden);
      bytes[bytes.length - 5000] = (bytes[bytes.length - 5000] ?? 0) ^ 1;
      writeFileSync(harmed, bytes);
      const inspected = stubdom("dom0", "inspect", harmed);
      expect(inspected.status).toBe(1);
      expect(inspected.stdout).toMatch(/fault +state refused, byte \d+: \S/);
      const { status, stderr } = stubdom("dom0", "extract", harmed, join(directory, "none"));
      expect(status).toBe(1);
      expect(stderr).toMatch(/harmed.disk: state refused, byte \d+: \S/);
      expect(readdirSync(directory).filter((name) => name.startsWith("none"))).toEqual([]);
    });
  });

  it("explains each of dom0's commands", () => {
    const { stdout } = stubdom("dom0", "--help");
    for (const command of ["serve", "status", "save", "inspect", "extract"]) {
      expect(stdout).toContain(`stubdom dom0 ${command}`);
      expect(stubdom("dom0", command, "--help")).toMatchObject({ status: 0 });
    }
  });
});
