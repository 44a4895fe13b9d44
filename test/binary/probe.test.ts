/** The program that measures in test guests, on this machine: what it prints is what the benchmark reads. */

import { execFileSync, spawn, spawnSync } from "node:child_process";
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { guestProbe } from "../../scripts/bench/probe.ts";
import { probeLine } from "../../scripts/bench/readings.ts";

let directory: string;
let probe: string;

beforeAll(async () => {
  // Not /tmp, which may be a file system without direct I/O.
  mkdirSync("dist", { recursive: true });
  directory = mkdtempSync("dist/probe-");
  probe = join(directory, "probe");
  writeFileSync(probe, new Uint8Array(await guestProbe()));
  chmodSync(probe, 0o755);
}, 600_000);

afterAll(() => rmSync(directory, { recursive: true, force: true }));

const run = (...words: readonly string[]) => probeLine(execFileSync(probe, words).toString().trimEnd());

describe("the guest's program", () => {
  it("is small: firmware reads it through an emulated controller", async () => {
    expect((await guestProbe()).length).toBeLessThan(8192);
  });

  it("times a loop", () => {
    const [short, long] = [run("cpu", "1000000"), run("cpu", "20000000")];
    expect([short.count, long.count]).toEqual([1_000_000, 20_000_000]);
    // A lap is a thousand rounds in both: what else this machine does reaches half of them in neither.
    const ratio = (long.p50 ?? 0) / (short.p50 ?? 0);
    expect(ratio).toBeGreaterThan(1 / 3);
    expect(ratio).toBeLessThan(3);
    expect(long.p50 ?? 0).toBeLessThanOrEqual(long.max ?? 0);
  });

  it("reads and writes a disk, in order and anywhere", () => {
    const disk = join(directory, "disk");
    writeFileSync(disk, "");
    truncateSync(disk, 4 << 20);
    for (const words of [
      ["write", "seq", "65536", "64", "none"],
      ["read", "seq", "65536", "64", "none"],
      ["write", "random", "4096", "20", "flush"],
      ["read", "random", "4096", "100", "none"],
    ]) {
      const values = run("disk", disk, ...words);
      expect(values.bytes).toBe(Number(words[2]) * Number(words[3]));
      expect(values.ns).toBeGreaterThan(0);
      const [p50 = 0, p90 = 0, p99 = 0, max = 0] = [values.p50, values.p90, values.p99, values.max];
      expect([p50, p90, p99, max]).toEqual([p50, p90, p99, max].sort((a, b) => a - b));
    }
  });

  it.each([
    ["random", 0],
    ["seq", 1],
  ])("keeps what is %s in a half of the disk, so that nobody has read it before", (order, half) => {
    const disk = join(directory, `${order}.img`);
    writeFileSync(disk, Buffer.alloc(1 << 20));
    run("disk", disk, "write", order, "4096", "300", "none");
    const halves = [0, 1].map((n) => readFileSync(disk).subarray(n << 19, (n + 1) << 19));
    expect(halves.map((bytes) => bytes.some((byte) => byte !== 0))).toEqual([half === 0, half === 1]);
  });

  it("moves bytes over TCP, both ways", async () => {
    const received: number[] = [];
    const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
      let count = 0;
      socket.on("data", (chunk) => {
        count += chunk.length;
      });
      socket.on("end", () => {
        received.push(count);
        socket.end(Buffer.alloc(300_000));
      });
      socket.on("error", () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? String(address.port) : "";
    const child = spawn(probe, ["tcp-send", "127.0.0.1", port, "1000000"]);
    let text = "";
    child.stdout.on("data", (chunk: Buffer) => {
      text += chunk.toString();
    });
    await new Promise((resolve) => child.once("close", resolve));
    server.close();
    expect(probeLine(text.trimEnd())).toMatchObject({ bytes: 1_000_000 });
    expect(received).toEqual([1_000_000]);
  });

  it.each([
    [["cpu", "1x"]],
    [["cpu", ""]],
    [["disk", "/nonexistent", "read", "seq", "512", "1", "none"]],
    [["disk", "/dev/null", "read", "seq", "512", "1", "none"]],
    [["tcp-receive", "127.0.0.1", "1"]],
    [["unknown"]],
    [[]],
  ])("tells what it cannot do: %j", (words) => {
    const { status, stdout } = spawnSync(probe, words);
    expect(status).toBeGreaterThan(0);
    expect(() => probeLine(stdout.toString().trimEnd())).toThrow(/program says/);
  });
});
