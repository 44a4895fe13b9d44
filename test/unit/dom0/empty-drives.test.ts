import { afterEach, beforeEach, expect, test } from "vitest";
import { EmptyDrives } from "../../../agent/dom0/empty-drives.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { FakeXenHost } from "../../fakes/xen-host.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

const node = "/local/domain/0/backend/qdisk/7/5696";
let host: FakeXenHost;
let daemon: FakeXenstored;
let drives: EmptyDrives;

beforeEach(async () => {
  daemon = new FakeXenstored({ largestPiece: 4096 });
  host = new FakeXenHost(daemon);
  await host.start();
  drives = new EmptyDrives(host.process(0).connect(), silentLogger, 7);
  await drives.start();
});

afterEach(() => {
  drives.stop();
  host.stop();
});

const settle = () => new Promise((resolve) => setTimeout(resolve, 50));

/** As libxl makes a drive, and asks it to close. */
async function closed(params: string, type = "cdrom", online = "0"): Promise<string | undefined> {
  daemon.set(`${node}/params`, params);
  daemon.set(`${node}/device-type`, type);
  daemon.set(`${node}/online`, online);
  daemon.set(`${node}/state`, "5");
  await settle();
  return daemon.get(`${node}/state`);
}

test.each(["", "aio:", ":"])("an empty drive (%j) that is to close is closed", async (params) => {
  expect(await closed(params)).toBe("6");
});

test("one with a medium, a disk, and one that stays are left to their QEMU", async () => {
  expect(await closed("aio:/root/cd.iso")).toBe("5");
  expect(await closed("", "disk")).toBe("5");
  expect(await closed("", "cdrom", "1")).toBe("5");
});

test("one that was never asked to close is left alone, and so is all after the end", async () => {
  daemon.set(`${node}/params`, "");
  daemon.set(`${node}/device-type`, "cdrom");
  daemon.set(`${node}/online`, "1");
  daemon.set(`${node}/state`, "1");
  await settle();
  expect(daemon.get(`${node}/state`)).toBe("1");
  drives.stop();
  await settle();
  expect(await closed("")).toBe("5");
});
