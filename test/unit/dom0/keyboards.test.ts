import { afterEach, beforeEach, expect, test } from "vitest";
import { UnservedKeyboards } from "../../../agent/dom0/keyboards.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { quiet } from "../../fakes/clock.ts";
import { FakeXenHost } from "../../fakes/xen-host.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

const state = (id: number, domid = 7) => `/local/domain/0/backend/vkbd/${domid}/${id}/state`;
let host: FakeXenHost;
let daemon: FakeXenstored;
let keyboards: UnservedKeyboards;

beforeEach(async () => {
  daemon = new FakeXenstored({ largestPiece: 4096 });
  host = new FakeXenHost(daemon);
  await host.start();
  keyboards = new UnservedKeyboards(host.process(0).connect(), silentLogger, 7);
});

afterEach(() => {
  keyboards.stop();
  host.stop();
});

test("those that wait for a backend are closed, whenever they come, and no other domain's", async () => {
  daemon.set(state(0), "1");
  daemon.set(state(0, 8), "1");
  await keyboards.start();
  await quiet();
  daemon.set(state(1), "1");
  await quiet();
  expect([state(0), state(1), state(0, 8)].map((node) => daemon.get(node))).toEqual(["6", "6", "1"]);
});

test("one that somebody serves, or that goes, is left alone", async () => {
  daemon.set(state(0), "4");
  daemon.set(state(1), "5");
  await keyboards.start();
  await quiet();
  expect([state(0), state(1)].map((node) => daemon.get(node))).toEqual(["4", "5"]);
});

test("none is closed after the stop", async () => {
  await keyboards.start();
  await quiet();
  keyboards.stop();
  await quiet();
  daemon.set(state(0), "1");
  await quiet();
  expect(daemon.get(state(0))).toBe("1");
});
