import { beforeEach, describe, expect, test } from "vitest";
import { DiskErrors, readDiskError } from "../../../agent/hotplug/disk-errors.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import type { JsonObject } from "../../../agent/qmp/json.ts";
import { FakeClock } from "../../fakes/clock.ts";

/** As QEMU 10 sends it. */
const failure: JsonObject = {
  "qom-path": "/machine/unattached/device[12]",
  device: "ide0-hd0",
  "node-name": "#block147",
  reason: "Input/output error",
  operation: "write",
  action: "report",
  nospace: false,
};

let clock: FakeClock;
let told: string[];
let errors: DiskErrors;

beforeEach(() => {
  clock = new FakeClock();
  told = [];
  const tell = (text: string) => void told.push(text);
  errors = new DiskErrors({
    clock,
    log: { ...silentLogger, error: (_, line) => tell(line) },
    nameOf: (device) => (device.startsWith("ide") ? `disk <${device}>` : undefined),
    complain: tell,
  });
});

describe("a disk that fails", () => {
  test("is told at once, with its value and what to do", () => {
    errors.happened(failure);
    expect(told).toEqual([
      "disk <ide0-hd0>: a write failed: Input/output error; the guest was told; see dom0's kernel log, and whether the image's file system is full; start the guest anew once the disk is well, for QEMU may fail every flush of it until then",
    ]);
  });

  test("and is well again goes on for reading: nothing is to be started anew", () => {
    errors.happened({ ...failure, operation: "read" });
    expect(told).toEqual([expect.stringMatching(/a read failed: .*, and whether .* is full$/)]);
  });

  test("is told once a burst, with the count of the rest, and again after a pause", async () => {
    for (let n = 0; n < 1000; n++) errors.happened(failure);
    await clock.advance(10_000);
    errors.happened(failure);
    errors.happened(failure);
    expect(told.slice(1)).toEqual([
      "disk <ide0-hd0>: QEMU told of 999 more write errors in 10 s, and tells of one a second for each disk at most",
    ]);
    await clock.advance(10_000);
    expect(told.slice(2)).toEqual([
      "disk <ide0-hd0>: QEMU told of 2 more write errors in 10 s, and tells of one a second for each disk at most",
    ]);
    await clock.advance(60_000);
    expect(clock.pending).toBe(0);
    errors.happened(failure);
    expect(told).toHaveLength(4);
  });

  test("is told for each disk and for reads and writes by themselves", () => {
    errors.happened(failure);
    errors.happened({ ...failure, operation: "read" });
    errors.happened({ ...failure, device: "ide0-hd1" });
    expect(told).toHaveLength(3);
  });

  test("that holds the guest: the line says how it goes on", () => {
    errors.happened({ ...failure, action: "stop", reason: "No space left on device", nospace: true });
    expect(told[0]).toMatch(/No space left on device; QEMU holds the guest; go on with `xl qemu-monitor/);
  });
});

describe("a QEMU that is not to be trusted", () => {
  test("gets no line for each name that it makes up, and no memory", async () => {
    for (let turn = 0; turn < 100; turn++) {
      for (let n = 0; n < 100; n++) errors.happened({ ...failure, device: `made up ${turn} ${n}` });
      expect(clock.pending).toBe(1);
      await clock.advance(10_000);
    }
    expect(told.slice(0, 2)).toEqual([
      expect.stringMatching(/^QEMU's drive made up 0 0: a write failed: /),
      "QEMU's drives of unknown names: QEMU told of 99 more write errors in 10 s, and tells of one a second for each disk at most",
    ]);
    // No more than of one disk that fails all the time.
    expect(told).toHaveLength(101);
    await clock.advance(20_000);
    expect(clock.pending).toBe(0);
  });

  test("does not hide what disks that there are have to say", async () => {
    for (let n = 0; n < 100; n++) errors.happened({ ...failure, device: `made up ${n}` });
    errors.happened(failure);
    expect(told.slice(1)).toEqual([expect.stringMatching(/^disk <ide0-hd0>: a write failed/)]);
  });

  test("is told by what it calls its drive, without control characters", async () => {
    for (const device of ["", "\u001b[2J"]) {
      errors.happened({ ...failure, device, "qom-path": "" });
      await clock.advance(20_000);
    }
    expect(told.map((line) => line.slice(0, line.indexOf(":")))).toEqual([
      "QEMU's drive without a name",
      "QEMU's drive \\x1b[2J",
    ]);
  });

  test.each<[string, JsonObject, ReturnType<typeof readDiskError>]>([
    ["nothing", {}, { device: "", operation: "request", stops: false, reason: "unknown reason" }],
    [
      "other types",
      { device: 3, "qom-path": [], operation: { read: 1 }, action: 1, reason: null },
      { device: "", operation: "request", stops: false, reason: "unknown reason" },
    ],
    [
      "a drive without a name",
      { device: "", "qom-path": "/machine/peripheral/ide-5632", operation: "read", action: "ignore" },
      { device: "ide-5632", operation: "read", stops: false, reason: "unknown reason" },
    ],
  ])("says %s", (_, data, expected) => expect(readDiskError(data)).toEqual(expected));

  test("has its words cut", () => {
    const { device, reason } = readDiskError({ device: "d".repeat(9999), reason: "r".repeat(9999) });
    expect([device.length, reason.length]).toEqual([100, 100]);
  });
});

test("at the end no timer is left", () => {
  errors.happened(failure);
  errors.stop();
  errors.stop();
  expect(clock.pending).toBe(0);
});
