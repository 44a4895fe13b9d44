import { execFileSync, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { MEASURES } from "../../../scripts/bench/measures.ts";
import {
  leastMemory,
  newProcesses,
  perGuest,
  probeLine,
  probes,
  processes,
  processScript,
  shellQemuStart,
  xlInfo,
  xlList,
} from "../../../scripts/bench/readings.ts";
import {
  guestFigures,
  guestJobs,
  labelsOf,
  scratchMiB,
  settingsOf,
} from "../../../scripts/bench/settings.ts";

describe("what the guest's program says", () => {
  test("is found on the console by its label, the last time", () => {
    const console = [
      "guest: up 1.2",
      "guest: probe port port ns=100 count=4",
      "guest: probe none cpu ns=1 count=1",
      "[   3.0] guest: probe port port ns=200 count=4\r",
    ];
    expect(probes(console)).toEqual(
      new Map([
        ["port", "port ns=200 count=4"],
        ["none", "cpu ns=1 count=1"],
      ]),
    );
    expect(probeLine("disk ns=100 bytes=8 p99=7")).toEqual({ ns: 100, bytes: 8, p99: 7 });
  });

  test.each(["", "disk failed /dev/sdb errno=2", "sh: /boot/probe: not found"])("%j is a failure", (line) => {
    expect(() => probeLine(line)).toThrow(/program says/);
  });
});

const parentOf = (pid: number) =>
  Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);

test("xl list", () => {
  const text = `Name                                        ID   Mem VCPUs	State	Time(s)
Domain-0                                     0  1024     1     r-----      12.3
bench0                                       3    64     1     -b----       0.7
bench0-dm                                    4    64     1     -b----       0.2
(null)                                       5     0     1     --psrd       0.0
`;
  expect(xlList(text).get("bench0-dm")).toEqual({ domid: 4, memory: 64, seconds: 0.2 });
  expect(xlList(text).size).toBe(4);
});

test("xl info", () => {
  const text =
    "host                   : dom0\nfree_memory            : 4321\nxen_version            : 4.20.0\n";
  expect([xlInfo(text, "free_memory"), xlInfo(text, "xen_version"), xlInfo(text, "none")]).toEqual([
    "4321",
    "4.20.0",
    "",
  ]);
});

describe("processes of dom0", () => {
  test("that were not there before", () => {
    const before = processes("1 500 10 init\n20 100 1 xenstored\n");
    const after = processes(
      "1 600 12 init\n20 100 1 xenstored\n30 9000 50 qemu-system-i38\n31 80 2 xl\nnonsense\n",
    );
    expect(newProcesses(before, after, ["xl"])).toEqual([
      { name: "qemu-system-i38", kib: 9000, switches: 50 },
    ]);
  });

  test("are listed by a script that any shell runs", () => {
    const own = processes(execFileSync("sh", ["-c", processScript]).toString()).get(process.pid);
    expect(own?.kib).toBeGreaterThan(1000);
    expect(own?.switches).toBeGreaterThan(0);
  }, 60_000);

  test("kernel threads are among them, without memory: a process that has ended has none either", async () => {
    const parent = spawn("sh", ["-c", "sleep 0 & exec sleep 60"]);
    try {
      const ended = () =>
        [...processes(execFileSync("sh", ["-c", processScript]).toString())]
          .filter(([pid, { name }]) => name === "sleep" && parentOf(pid) === parent.pid)
          .map(([, { kib }]) => kib);
      await expect.poll(ended, { timeout: 30_000 }).toEqual([0]);
    } finally {
      parent.kill();
    }
  }, 60_000);
});

test("what stub domains tell of themselves", () => {
  expect(leastMemory("40000 of 60000, least 30000")).toBe(30000);
  expect([leastMemory(undefined), leastMemory("?")]).toEqual([undefined, undefined]);
  const marks = [
    "[    1.000000] shell: begins",
    "[    2.500000] shell: waits for devices",
    "[    2.750000] shell: has its devices",
    "[   13.410000] shell: starts QEMU",
  ];
  const start = shellQemuStart(["x", ...marks, "y"].join("\r\n"));
  expect(start?.start).toBeCloseTo(13410, 6);
  expect(start?.own).toBeCloseTo(12160, 6);
  expect(shellQemuStart(marks.slice(1).join("\n"))).toBeUndefined();
});

test("what each further guest costs", () => {
  expect(perGuest([1, 2, 4, 8].map((guests) => ({ guests, value: 100 + 130 * guests })))).toBeCloseTo(130, 9);
});

describe("settings", () => {
  test("each job of the guest gives figures that exist", () => {
    const settings = settingsOf({ quick: false, minios: false, icount: false });
    const measured = { ns: 1000, count: 10, bytes: 4096, received: 9, span: 900, lost: 0 };
    const values = { ...measured, p50: 1, p90: 2, p99: 3, max: 4 };
    const ids = labelsOf(settings).flatMap((label) => guestFigures(label, values).map(([id]) => id));
    expect(new Set(ids).size).toBe(ids.length);
    const expected = MEASURES.filter(({ group }) => ["access", "disk", "network"].includes(group)).map(
      ({ id }) => id,
    );
    expect(ids.sort()).toEqual(expected.sort());
    expect(() => guestFigures("nothing", values)).toThrow("nothing");
    expect(() => guestFigures("port", { ns: 1 })).toThrow("no p50=");
  });

  test("the jobs fit on a kernel's command line, and hold nothing that the guest's init would split", () => {
    const jobs = guestJobs(settingsOf({ quick: false, minios: true, icount: false }));
    expect(jobs.join(",").length).toBeLessThan(1500);
    for (const job of jobs) expect(job).toMatch(/^[a-z0-9:./-]+$/);
  });

  test("counted, only what a counted figure needs is done", () => {
    const jobs = guestJobs(settingsOf({ quick: false, minios: false, icount: true }));
    const labels = jobs.map((job) => /^(?:probe:)?([^:]+)/.exec(job)?.[1]);
    const prepared = ["drift", "rest", "nic"];
    const probed = labels.filter((label = "") => !prepared.includes(label));
    expect(labels.slice(0, 2)).toEqual(["drift", "rest"]);
    expect(probed).toEqual(["port", "mmio", "cpu", "cold-read", "random-write", "random-read", "echo"]);
    expect(labelsOf(settingsOf({ quick: false, minios: false, icount: true }))).toEqual(probed);
    const values = { ns: 1000, count: 10, lost: 0, bytes: 4096, low90: 1, p50: 1, p90: 2, p99: 3, max: 4 };
    const ids = probed.flatMap((label = "") => guestFigures(label, values, true).map(([id]) => id));
    // Sizes are no affair of the guest's.
    for (const { id } of MEASURES.filter(({ counted, group }) => counted && group !== "resources"))
      expect(ids).toContain(id);
  });

  test("figures in their units", () => {
    expect(guestFigures("port", { ns: 70_000, count: 10, p50: 5000 })).toEqual([["access.port", 5]]);
    // A lap of the loop is a thousand rounds.
    expect(guestFigures("cpu", { ns: 60_000, count: 10_000, p50: 5000 })).toEqual([["access.cpu", 5]]);
    // Counted, it is the mean of the lowest nine tenths.
    expect(guestFigures("port", { low90: 6000, p50: 5000 }, true)).toEqual([["access.port", 6]]);
    expect(() => guestFigures("port", { p50: 5000 }, true)).toThrow("no low90=");
    expect(guestFigures("beside", { ns: 60_000, count: 10_000, p50: 5000 })).toEqual([["access.beside", 6]]);
    expect(guestFigures("seq-read", { ns: 1e9, bytes: 2e6 })).toEqual([["disk.seq-read", 2]]);
    // From the first that arrived to the last there are 90 distances.
    expect(guestFigures("udp", { ns: 1, count: 100, received: 91, span: 5e8 })).toEqual([
      ["network.udp", 180],
    ]);
    expect(guestFigures("flush-seq", { ns: 1e9, bytes: 2e6 })).toEqual([["disk.flush-seq", 2]]);
    expect(guestFigures("flush-write", { ns: 1e9, count: 50, p50: 1000, p99: 3000 })).toEqual([
      ["disk.flush-write", 50],
      ["disk.flush-p50", 1],
      ["disk.flush-p99", 3],
    ]);
    expect(guestFigures("echo", { p50: 1000, p90: 1500, p99: 2000, count: 9, lost: 1 })).toEqual([
      ["network.echo-p50", 1],
      ["network.echo-p90", 1.5],
      ["network.echo-p99", 2],
      ["network.echo-lost", 10],
    ]);
  });

  test("short, with MiniOS, counted, or in part", () => {
    const choice = { quick: false, minios: false, icount: false };
    expect(settingsOf(choice)).toMatchObject({ runs: 5, controller: "ahci" });
    expect(settingsOf(choice).groups).toContain("density");
    const quick = settingsOf({ ...choice, quick: true, minios: true });
    expect(quick).toMatchObject({ runs: 1, controller: "ide" });
    expect(quick.groups).not.toContain("density");
    expect(settingsOf({ ...choice, icount: true }).groups).toEqual([
      "resources",
      "access",
      "disk",
      "network",
    ]);
    expect(settingsOf({ ...choice, quick: true, only: ["save"], runs: 3 })).toMatchObject({
      groups: ["save"],
      runs: 3,
    });
    expect(() => settingsOf({ ...choice, only: ["disc"] })).toThrow(/no group disc; there are resources, /);
    expect(() => settingsOf({ ...choice, icount: true, only: ["disk", "save"] })).toThrow(
      /--icount: nothing of save is counted, but resources, access, disk, network/,
    );
    expect(() => settingsOf({ ...choice, runs: 0 })).toThrow(/--runs 0/);
    expect(() => settingsOf({ ...choice, runs: Number.NaN })).toThrow(/--runs NaN/);
  });

  test("half of the scratch disk holds what is read in order", () => {
    expect(scratchMiB(settingsOf({ quick: false, minios: false, icount: false }))).toBe(2 * 16);
  });
});
