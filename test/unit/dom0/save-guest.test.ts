import { expect, test } from "vitest";
import { saveGuest } from "../../../agent/dom0/save-guest.ts";
import type { Descriptors, ExitStatus } from "../../../agent/platform/port.ts";
import { DescriptorStream } from "../../../agent/platform/stream.ts";
import { FakeClock } from "../../fakes/clock.ts";
import { FakeDescriptors } from "../../fakes/descriptors.ts";
import { FakeFiles, fakePlatform } from "../../fakes/platform.ts";
import { FakeQemuMonitor } from "../../fakes/qemu.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

/** A dom0 with domain 4, and all that was done to it, in order. */
function dom0(execute: (command: string, hangUp: () => void) => void) {
  const daemon = new FakeXenstored();
  daemon.set("/local/domain/4/name", "web");
  const done: string[] = [];
  const kernel = new FakeDescriptors();
  const descriptors = kernel as unknown as Descriptors;
  const ended: ExitStatus[] = [];
  let child = () => {};
  const platform = fakePlatform({
    clock: new FakeClock(),
    files: new FakeFiles({ "/usr/sbin/xl": "" }),
    sockets: {
      connectUnix(path) {
        const [ours, theirs] = kernel.pair();
        const stream = new DescriptorStream(descriptors, theirs, path);
        if (path.endsWith("xenstored/socket")) serveXenstore(stream, daemon);
        else
          new FakeQemuMonitor(stream, {
            execute(command) {
              done.push(command);
              execute(command, () => stream.close());
              return {};
            },
          });
        return ours;
      },
    },
    processes: {
      onSignals(_, deliver) {
        child = () => deliver("SIGCHLD");
      },
      spawn({ argv }) {
        done.push(argv.join(" ").replace("/usr/sbin/", ""));
        ended.push({ pid: 7, code: 0, signal: null });
        setImmediate(() => child());
        return 7;
      },
      reap: () => ended.shift() ?? null,
    },
  });
  return { platform: { ...platform, descriptors }, done };
}

function serveXenstore(stream: DescriptorStream, daemon: FakeXenstored): void {
  const bus = daemon.connect(0);
  const requests = async () => {
    for (let bytes = await stream.read(); bytes !== null; bytes = await stream.read()) await bus.write(bytes);
    bus.close();
  };
  const replies = async () => {
    for (let bytes = await bus.read(); bytes !== null; bytes = await bus.read()) await stream.write(bytes);
  };
  void requests();
  void replies();
}

test("the connection breaks between `stop` and `cont`: left to `xl unpause`, and told", async () => {
  const { platform, done } = dom0((command, hangUp) => {
    if (command === "xen-save-devices-state") hangUp();
  });
  await expect(saveGuest(platform, "web", "/root/web.state")).rejects.toThrow(
    /^QEMU has not answered "cont" \(.*\), xl unpause sends it again; .* repeat: xl unpause 4$/,
  );
  expect(done).toEqual(["xl pause 4", "query-version", "stop", "xen-save-devices-state", "xl unpause 4"]);
});
