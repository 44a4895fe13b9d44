import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, expect, test } from "vitest";
import { CommandError, capture, run } from "../../../bundler/exec.ts";

const dir = mkdtempSync(join(tmpdir(), "exec-test-"));
afterAll(() => rmSync(dir, { recursive: true }));

test("a failed command shows the end of its log and names the file", async () => {
  const log = join(dir, "failed.log");
  const failed = run(["sh", "-c", "for i in $(seq 100); do echo line $i; done; echo why >&2; exit 3"], {
    log,
  });
  const error = await failed.then(
    () => undefined,
    (e: unknown) => e,
  );
  expect(error).toBeInstanceOf(CommandError);
  const { message } = error as CommandError;
  expect(message).toContain("exit status 3");
  expect(message).toMatch(/\bwhy\b/);
  expect(message).toContain("line 100");
  expect(message).not.toContain("line 50\n");
  expect(message).toContain(log);
});

test("a log that cannot be written is said so, and loses nothing of what a failed command shows", async () => {
  const failed = run(["sh", "-c", "echo why; exit 3"], { log: "/dev/full" });
  await expect(failed).rejects.toThrow(/why\nexit status 3; \/dev\/full could not be written: ENOSPC/);
  await run(["echo", "fine"], { log: "/dev/full" });
});

test("a command that is not there is an error too", async () => {
  await expect(run(["/nonexistent"], { log: join(dir, "none.log") })).rejects.toThrow("ENOENT");
  await expect(capture(["/nonexistent"])).rejects.toThrow("ENOENT");
});

test("the log holds the command and everything it wrote", async () => {
  const log = join(dir, "fine.log");
  await run(["sh", "-c", "cat; echo b >&2"], { log, input: "a\n" });
  expect(readFileSync(log, "utf8").split("\n").sort()).toEqual(["", "+ sh -c cat; echo b >&2", "a", "b"]);
});
