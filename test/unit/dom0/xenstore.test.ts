import { describe, expect, test } from "vitest";
import { BackendQemu } from "../../../agent/dom0/backend-qemu.ts";
import { connectXenstore, findDomain } from "../../../agent/dom0/xenstore.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { type Descriptors, SystemError } from "../../../agent/platform/port.ts";
import { DescriptorStream } from "../../../agent/platform/stream.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock } from "../../fakes/clock.ts";
import { FakeDescriptors } from "../../fakes/descriptors.ts";
import { fakePlatform } from "../../fakes/platform.ts";
import { FakeQemuMonitor } from "../../fakes/qemu.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

/** A listener that refuses the first `times` connections with `code`, and serves the next as QEMU's monitor. */
function listener(times: number, code = "EAGAIN") {
  const clock = new FakeClock();
  const kernel = new FakeDescriptors();
  const descriptors = kernel as unknown as Descriptors;
  const asked: string[] = [];
  const connectUnix = (path: string) => {
    asked.push(path);
    if (asked.length <= times) throw new SystemError(code, "connect", path);
    const [ours, theirs] = kernel.pair();
    new FakeQemuMonitor(new DescriptorStream(descriptors, theirs, "QEMU's"));
    return ours;
  };
  const platform = { ...fakePlatform({ clock, sockets: { connectUnix } }), descriptors };
  return { clock, platform, asked };
}

describe("a listener that others wait at", () => {
  test("is tried again: xenstored", async () => {
    const { clock, platform, asked } = listener(10);
    const connecting = connectXenstore(platform);
    await clock.advance(1_000);
    (await connecting).close();
    expect(asked).toEqual(Array(11).fill("/run/xenstored/socket"));
    expect(clock.pending).toBe(0);
  });

  test("is tried again: dom0's QEMU", async () => {
    const { clock, platform } = listener(10);
    const talking = new BackendQemu({ platform, log: silentLogger }, 5).talk((qmp) =>
      qmp.execute("query-version"),
    );
    await clock.advance(1_000);
    await expect(talking).resolves.toEqual({});
  });

  test("is given up after five seconds, and the error says what to do", async () => {
    const { clock, platform, asked } = listener(Number.POSITIVE_INFINITY);
    const connecting = connectXenstore(platform);
    connecting.catch(() => {});
    await clock.advance(10_000);
    await expect(connecting).rejects.toThrow(
      /^connect \/run\/xenstored\/socket: EAGAIN for 5 s, .*; see whether what listens there is stuck/,
    );
    expect(asked.length).toBeLessThan(300);
    expect(clock.pending).toBe(0);
  });

  test("is no other error", async () => {
    await expect(connectXenstore(listener(1, "EACCES").platform)).rejects.toThrow(
      "connect /run/xenstored/socket: EACCES",
    );
  });
});

test("digits are a domain's number, as xl has it, whatever its name is", async () => {
  const daemon = new FakeXenstored();
  daemon.setAll({
    "/local/domain/0/name": "Domain-0",
    "/local/domain/7/name": "12",
    "/local/domain/12/name": "web",
  });
  const xenstore = new XenstoreClient(daemon.connect(0), new FakeClock());
  expect(await findDomain(xenstore, "12")).toBe(12);
  expect(await findDomain(xenstore, "7")).toBe(7);
  expect(await findDomain(xenstore, "web")).toBe(12);
  for (const none of ["13", "mail", ""])
    await expect(findDomain(xenstore, none)).rejects.toThrow(`no domain ${none}; \`xl list\` shows`);
  xenstore.close();
});
