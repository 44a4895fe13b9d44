/** runInit: the console, the mounts, and errors that nobody caught. */
import { expect, test } from "vitest";
import { decodeText } from "../../../agent/bytes/text.ts";
import { runInit } from "../../../agent/init/init.ts";
import { mounts } from "../../../agent/init/mounts.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { FakeFiles, fakePlatform } from "../../fakes/platform.ts";

/** A kernel without xenstore: the shortest way from the first mount to the end. */
function bareKernel({ console = true } = {}) {
  const files = new FakeFiles();
  const written = new Map<number, string>();
  const poweredOff: string[] = [];
  const platform = fakePlatform({
    files,
    descriptors: {
      open(path) {
        if (path !== "/dev/hvc0" || !console) throw new SystemError("ENOENT", "open", path);
        return 5;
      },
      write(fd, from) {
        written.set(fd, (written.get(fd) ?? "") + decodeText(from));
        return from.length;
      },
      onWritable() {},
    },
    sockets: { terminalRaw() {} },
    processes: { powerOff: (how) => void poweredOff.push(how), endWithin: () => {} },
  });
  let uncaught: (error: unknown) => void = () => {};
  const run = () =>
    runInit(platform, (report) => {
      uncaught = report;
    });
  return { files, written, poweredOff, run, uncaught: (error: unknown) => uncaught(error) };
}

test("mounts what there is to mount, in order, and ends where there is no Xen", async () => {
  const { files, written, poweredOff, run } = bareKernel();
  await run();
  expect(files.mounts).toEqual(
    mounts.map(({ type, target, flags, data }) => [type, target, type, flags.join(","), data].join(" ")),
  );
  expect(files.mounts[0]).toBe("devtmpfs /dev devtmpfs nosuid,noexec mode=0755");
  expect(written.get(5)).toBe(
    "[    0.000] error open /dev/xen/xenbus: ENOENT; boot the image's own kernel, stubdom-linux-kernel, with a stubdomain_memory= of at least 64, and see the lines above\r\n",
  );
  expect(poweredOff).toEqual(["crash"]);
});

test("without a console, writes to the descriptor that the kernel gave", async () => {
  const { written, run } = bareKernel({ console: false });
  await run();
  expect(written.get(1)).toMatch(
    /error no console \/dev\/hvc0: .*ENOENT.*\r\n.*xenbus: ENOENT; boot .*\r\n$/,
  );
});

test("an error that nobody caught is one line with its stack, and ends nothing", async () => {
  const { written, poweredOff, run, uncaught } = bareKernel();
  await run();
  poweredOff.length = 0;
  written.clear();
  uncaught(new Error("oops\nsecond"));
  uncaught("text");
  uncaught(undefined);
  const lines = (written.get(5) ?? "").split("\r\n");
  expect(lines).toHaveLength(4);
  expect(lines[0]).toMatch(/error fault of the agent: oops/);
  expect(lines.slice(1, 3)).toEqual([
    "[    0.000] error fault of the agent: text",
    "[    0.000] error fault of the agent: undefined",
  ]);
  expect(poweredOff).toEqual([]);
});
