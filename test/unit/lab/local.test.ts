import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { RemoteFailure, Timeout } from "../../../scripts/lab/errors.ts";
import { LocalHost } from "../../../scripts/lab/local.ts";

// What every host shares, and the local one's processes; no Xen is needed for that.
const host = new LocalHost();

test("commands: output, lines, status, input", async () => {
  const lines: string[] = [];
  const result = await host.run("echo one; echo two >&2; cat", {
    input: "three\n",
    onLine: (line) => lines.push(line),
  });
  expect(result).toEqual({ status: 0, stdout: "one\nthree\n", stderr: "two\n" });
  expect(lines.sort()).toEqual(["one", "three", "two"]);
  expect((await host.run(["sh", "-c", "exit 3"], { accept: [3] })).status).toBe(3);
  await expect(host.run("echo why >&2; exit 4")).rejects.toThrow(RemoteFailure);
  expect((await host.run("kill -TERM $$", { accept: "any" })).status).toBe(143);
  await expect(host.run(["/no/such/program"])).rejects.toThrow(/ENOENT/);
});

test("a command that takes too long is killed with all that it started", async () => {
  await expect(host.run("sleep 60 & sleep 60", { timeout: 0.2 })).rejects.toThrow(Timeout);
});

test("what has ended by a signal, or by itself, can be ended once more", async () => {
  for (const command of ["kill -KILL $$", "exit 3"]) {
    const ended = host.spawn(command);
    await ended.exited.catch(() => {});
    ended.kill(15);
  }
  // It has gone, and its pipes are still open: what it left has them.
  const left = host.spawn("sleep 1 & kill -KILL $$");
  await new Promise((resolve) => setTimeout(resolve, 100));
  left.kill(15);
  left.kill(15);
  await left.exited.catch(() => {});
});

test("files there and back", async () => {
  const directory = mkdtempSync(join(tmpdir(), "stubdom-local-"));
  try {
    const bytes = Uint8Array.from({ length: 300_000 }, (_, index) => index & 255);
    await host.push(bytes, join(directory, "a/b/file"));
    expect(Buffer.compare(await host.pull(join(directory, "a/b/file")), bytes)).toBe(0);
    await expect(host.pull(join(directory, "none"))).rejects.toThrow(RemoteFailure);
  } finally {
    rmSync(directory, { recursive: true });
  }
});

test("a command that leaves a process behind, with its pipes, has ended all the same", async () => {
  const began = Date.now();
  const { stdout } = await host.run("echo $$; sleep 20 & echo $!");
  expect(Date.now() - began).toBeLessThan(10_000);
  const [, left = ""] = stdout.trim().split("\n");
  process.kill(Number(left));
});
