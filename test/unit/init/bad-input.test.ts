/** Issue 2, "What bad input gets": each bad input by its name. */
import { describe, expect, test } from "vitest";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { argument, Stage, type StageOptions } from "./stage.ts";

/**
 * What every bad input gets that ends the stub domain: one line, the same in xenstore, within `within`
 * milliseconds of now, then `crash`, once, and nothing that could still wake PID 1.
 */
async function expectCrash(stage: Stage, within: number, ...says: RegExp[]): Promise<string> {
  await stage.pass(within);
  const errors = stage.of("error");
  expect(errors).toHaveLength(1);
  const [line = ""] = errors;
  for (const part of says) expect(line).toMatch(part);
  // Thing and value, then the remedy.
  expect(line).toMatch(/^\S.*; \S/);
  expect(stage.agent("error") ?? stage.daemon.get(`${stage.home}/error/stubdom/error`)).toBe(line);
  expect(stage.agent("phase") ?? stage.daemon.get(`${stage.home}/error/stubdom/phase`)).toBe("failed");
  expect(stage.poweredOff).toEqual(["crash"]);
  expect(stage.clock.pending).toBe(0);
  await stage.stubdom.fail(new Error("a second failure"));
  await stage.pass(5000);
  expect(stage.of("error")).toHaveLength(1);
  expect(stage.poweredOff).toEqual(["crash"]);
  return line;
}

/** A stage that has been spoilt before PID 1 runs. */
function spoilt(spoil: (stage: Stage) => void, options: StageOptions = {}): Stage {
  const stage = new Stage(options);
  spoil(stage);
  void stage.run();
  return stage;
}

test("nothing wrong: boots, says so, and leaves no timer", async () => {
  const stage = new Stage();
  await stage.running();
  expect(stage.of("error")).toEqual([]);
  expect(stage.of("warn")).toEqual([]);
  expect(stage.lines.at(-1)).toMatch(/^info: running/);
  expect(stage.agent("error")).toBeUndefined();
  expect(stage.agent("version")).toBeDefined();
  expect(stage.clock.pending).toBe(0);
  expect(stage.poweredOff).toEqual([]);
});

describe("what libxl wrote", () => {
  test("target is missing", async () => {
    const stage = spoilt(({ daemon, home }) => daemon.remove(`${home}/target`));
    await expectCrash(stage, 0, /xenstore target does not exist/, /device_model_stubdomain_override=1/);
    expect(stage.spawned).toEqual([]);
  });

  test("target is not readable", async () => {
    const stage = spoilt(({ daemon, home }) =>
      daemon.permit(`${home}/target`, [{ domid: 0, access: "none" }]),
    );
    await expectCrash(stage, 0, /xenstore read target: EACCES/, /check the node's permissions/);
  });

  for (const value of ["", "x", "-1", "32752", "1 ", "99999999999999999999"]) {
    test(`target is ${JSON.stringify(value)}`, async () => {
      const stage = spoilt(({ daemon, home }) => daemon.set(`${home}/target`, value));
      await expectCrash(stage, 0, /xenstore target is/, /not a domid/);
    });
  }

  test("target is another domain, whose directory libxl has not given to this one", async () => {
    const stage = spoilt(({ daemon, home }) => daemon.set(`${home}/target`, "9999"));
    await expectCrash(stage, 0, /\/local\/domain\/9999\/vm/);
    expect(stage.agent("phase")).toBeUndefined();
    expect(stage.of("warn")).toEqual([]);
  });

  test("vm is missing", async () => {
    const stage = spoilt(({ daemon, captured }) => daemon.remove(`/local/domain/${captured.target}/vm`));
    await expectCrash(stage, 0, /\/vm does not exist/, /create the guest again/);
  });

  test("vm is not readable", async () => {
    const stage = spoilt(({ daemon, captured }) =>
      daemon.permit(`/local/domain/${captured.target}/vm`, [{ domid: 0, access: "none" }]),
    );
    await expectCrash(stage, 0, /\/vm: EACCES/, /check the node's permissions/);
  });

  test("vm leads elsewhere", async () => {
    const stage = spoilt(({ daemon, captured }) =>
      daemon.set(`/local/domain/${captured.target}/vm`, "/local/domain/0/../x"),
    );
    await expectCrash(stage, 0, /\/vm is "\/local\/domain\/0\/..\/x"/);
  });

  test("dm-argv is missing", async () => {
    const stage = spoilt(({ daemon, argvPath }) => daemon.remove(argvPath));
    await expectCrash(stage, 0, /dm-argv: holds no arguments/, /create the guest again/);
  });

  test("dm-argv is not readable", async () => {
    const stage = spoilt(({ daemon, argvPath }) => daemon.permit(argvPath, [{ domid: 0, access: "none" }]));
    await expectCrash(stage, 0, /dm-argv: EACCES/, /check the node's permissions/);
  });

  test("one of the arguments is not readable", async () => {
    const stage = spoilt(({ daemon, argvPath }) =>
      daemon.permit(`${argvPath}/007`, [{ domid: 0, access: "none" }]),
    );
    await expectCrash(stage, 0, /dm-argv\/007: EACCES/);
  });

  test("a gap in the numbering", async () => {
    const stage = spoilt(({ daemon, argvPath }) => daemon.remove(`${argvPath}/007`));
    await expectCrash(stage, 0, /dm-argv\/007: is missing, of \d+ arguments/, /create the guest again/);
    expect(stage.spawned).toEqual([]);
  });

  test("a name that is no number", async () => {
    const stage = spoilt(({ daemon, argvPath }) => daemon.set(`${argvPath}/00x`, "-S"));
    await expectCrash(stage, 0, /dm-argv\/00x "-S": is not a number/);
  });

  test("an argument of 100 KB: no packet may be so long, so the connection is given up", async () => {
    const stage = spoilt((one) => {
      one.prepare = (bus) => {
        const write = bus.write.bind(bus);
        bus.write = async (packet) => {
          if (!decodeText(packet).includes("dm-argv/007")) return write(packet);
          // The reply to READ, as a xenstored that minds no limit would send it: xs_wire.h, type 2, its length last.
          bus.inject(new Uint8Array(Uint32Array.of(2, 1, 0, 100 * 1024).buffer));
        };
      };
    });
    await expectCrash(stage, 0, /xenstore read \S+\/dm-argv\/007: connection lost, .*102400/);
    expect(stage.spawned).toEqual([]);
  });

  test("an argument as long as xenstore carries them reaches QEMU", async () => {
    const stage = new Stage();
    stage.daemon.set(`${stage.argvPath}/007`, "x".repeat(4096));
    await stage.running();
    expect(stage.spawned[0]?.argv.some((bytes) => bytes.length === 4096)).toBe(true);
  });

  test("bytes that are not UTF-8 reach QEMU unchanged", async () => {
    const name = Uint8Array.of(0x67, 0xff, 0xfe, 0x80, 0xc3, 0x28, 0x01, 0x0a, 0x7f);
    const stage = new Stage();
    const at = stage.captured.argv.indexOf("-name") + 2;
    stage.daemon.set(`${stage.argvPath}/${String(at).padStart(3, "0")}`, name);
    await stage.running();
    const [spawned] = stage.spawned;
    if (spawned === undefined) throw new Error("nothing was spawned");
    const texts = spawned.argv.map((_, n) => decodeText(argument(spawned, n)));
    expect(argument(spawned, texts.indexOf("-name") + 1)).toEqual(name);
  });
});

describe("devices", () => {
  for (const [guest, dead, label, device] of [
    ["trixie-one-disk", "vbd/768", /disk hda \(device\/vbd\/768\)/, "disk"],
    ["trixie-three-nics", "vif/1", /network interface 1 \(device\/vif\/1\).*00:16:3e:00:00:02/, "NIC"],
  ] as const) {
    test(`a ${device} whose backend never connects: named at 4 s, the end at 12 s`, async () => {
      const stage = spoilt(() => {}, { guest, dead: [dead] });
      await stage.pass(3999);
      expect([...stage.of("warn"), ...stage.of("error")]).toEqual([]);
      await stage.pass(1);
      const [notice = ""] = stage.of("warn");
      expect(notice).toMatch(label);
      expect(notice).toMatch(/state 2 \(InitWait\); .*hotplug/);
      expect(stage.agent("error")).toBe(notice);
      expect(stage.agent("phase")).toBe("frontends");
      expect(stage.poweredOff).toEqual([]);
      await stage.pass(7999);
      expect(stage.poweredOff).toEqual([]);
      await expectCrash(stage, 1, label);
      expect(stage.of("warn")).toHaveLength(1);
      expect(stage.spawned).toEqual([]);
    });
  }

  test("a disk whose backend has closed it will not come: told once, at once", async () => {
    const stage = spoilt(
      ({ daemon, home, captured }) => daemon.set(`${home}/device/vbd/768/state`, "6", captured.stubdom),
      { dead: ["vbd/768"] },
    );
    await expectCrash(stage, 0, /disk hda \(device\/vbd\/768\).*frontend state 6 \(Closed\)/);
    expect(stage.of("warn")).toEqual([]);
  });

  test("beside one that is late it is told once all the same, and the other is not waited for", async () => {
    const stage = spoilt(
      ({ daemon, home, captured }) => daemon.set(`${home}/device/vbd/768/state`, "6", captured.stubdom),
      { guest: "trixie-three-nics", dead: ["vbd/768", "vif/1"] },
    );
    await expectCrash(stage, 4000, /disk hda \(device\/vbd\/768\)/);
    expect(stage.of("warn")).toEqual([
      expect.stringMatching(/^network interface 1 .*is not connected after 4000 ms/),
    ]);
  });

  test("no time left after the notice: told once", async () => {
    const stage = spoilt(() => {}, { dead: ["vbd/768"], commandLine: "stubdom.frontend_deadline=3" });
    await expectCrash(stage, 3000, /disk hda \(device\/vbd\/768\)/);
    expect(stage.of("warn")).toEqual([]);
  });

  test("beside what QEMU cannot have here is not waited for: refused at once", async () => {
    const stage = spoilt(() => {}, { dead: ["vbd/768"], moreArguments: ["-kernel", "/boot/vmlinuz"] });
    await expectCrash(stage, 0, /dm-argv\/\d+ -kernel .*boot from a disk/);
    expect([stage.of("warn"), stage.spawned]).toEqual([[], []]);
  });

  test("serial ports that QEMU does not have are named, and neither waited for nor opened", async () => {
    const numbers = [3, 4, 5, 6, 7, 8];
    const stage = new Stage({ moreArguments: numbers.slice(1).flatMap((n) => ["-serial", `/dev/hvc${n}`]) });
    for (const n of numbers) {
      if (n < 7) stage.files.put(`/dev/hvc${n}`, "");
      const { stubdom } = stage.captured;
      const nodes = { backend: `/local/domain/0/backend/console/${stubdom}/${n}`, state: n < 7 ? "4" : "1" };
      for (const [name, value] of Object.entries(nodes))
        stage.daemon.set(`${stage.home}/device/console/${n}/${name}`, value, stubdom);
    }
    await stage.running();
    expect(stage.of("warn")).toEqual([
      expect.stringMatching(/^\/dev\/hvc7 is no serial port of the guest's/),
      expect.stringMatching(/^\/dev\/hvc8 is no serial port of the guest's/),
    ]);
    expect([stage.of("error"), stage.clock.pending]).toEqual([[], 0]);
  });

  test("a kernel that does not answer rtnetlink", async () => {
    const stage = new Stage({ guest: "trixie-three-nics" });
    stage.route.silent = true;
    void stage.run();
    await expectCrash(stage, 2000, /^emulated NICs .*: list network .*ETIMEDOUT/, /; boot the image's own/);
  });

  // Linux reads it; it is looked at where the device does not come up.
  for (const [value, says] of [
    ["", /device\/vbd\/768\/backend holds ""/],
    ["x".repeat(4000), /device\/vbd\/768\/backend holds "x{80}"/],
  ] as const) {
    test(`xenbus data with wrong lengths: a backend of ${value.length} bytes`, async () => {
      const stage = spoilt(
        ({ daemon, home, captured }) => daemon.set(`${home}/device/vbd/768/backend`, value, captured.stubdom),
        { dead: ["vbd/768"] },
      );
      await stage.pass(4000);
      expect(stage.of("warn")[0]).toMatch(says);
      await expectCrash(stage, 8000, says);
    });
  }

  test("a late one that comes is forgotten", async () => {
    const stage = spoilt(() => {}, { dead: ["vbd/768"] });
    await stage.pass(5000);
    expect(stage.agent("error")).toMatch(/disk hda/);
    stage.daemon.set(`${stage.home}/device/vbd/768/state`, "4", stage.captured.stubdom);
    await stage.pass(100);
    expect(stage.agent("phase")).toBe("running");
    expect(stage.agent("error")).toBe("");
    expect([stage.of("error"), stage.clock.pending]).toEqual([[], 0]);
  });

  test("arguments that name a disk which the stub domain was not given", async () => {
    const stage = spoilt(({ daemon, home }) => daemon.remove(`${home}/device/vbd/768`));
    await expectCrash(stage, 0, /name disk \/dev\/xvda, which this stub domain was not given/);
  });

  test("two disks that are one to Linux", async () => {
    const stage = spoilt(({ daemon, home }) => {
      const backend = daemon.get(`${home}/device/vbd/768/backend`) ?? "";
      for (const [name, value] of Object.entries({
        backend,
        "virtual-device": "2048",
        "device-type": "disk",
      }))
        daemon.set(`${home}/device/vbd/2048/${name}`, value);
    });
    await expectCrash(
      stage,
      0,
      /vbd\/768\) and .*vbd\/2048\) are both \/dev\/xvda/,
      /another last letter in disk=/,
    );
  });

  for (const [node, value, says] of [
    ["device/vbd/768/device-type", "9".repeat(300), /device-type holds/],
    ["device/vbd/768/state", "44", /device\/vbd\/768\/state holds "44"/],
    ["device/vbd/99999999999", "", /device\/vbd/],
  ] as const) {
    test(`xenbus data with wrong lengths: ${node} of ${value.length} bytes`, async () => {
      const stage = new Stage();
      await stage.quiet();
      stage.daemon.set(`${stage.home}/${node}`, value, stage.captured.stubdom);
      void stage.run();
      await expectCrash(stage, 0, says);
    });
  }
});

describe("xenstore", () => {
  test("an error", async () => {
    const stage = spoilt(({ daemon, argvPath }) => daemon.refuse("directory", argvPath, "EIO"));
    await expectCrash(stage, 0, /xenstore directory .*dm-argv: EIO/, /look into xenstored's log/);
  });

  for (const [when, bytes] of [
    ["in its first packet", 7],
    ["in the middle of the boot", 700],
  ] as const) {
    test(`a connection cut in the middle of a packet, ${when}`, async () => {
      const stage = spoilt(({ bus }) => bus.cutAfter(bytes));
      await expectCrash(
        stage,
        0,
        /^xenstore connection: connection lost, cut \d+ bytes into a packet; .*look into/,
      );
      expect(stage.of("warn")).toEqual([]);
    });
  }

  for (const [when, place, bytes] of [
    ["who it is", 1, 7],
    ["the arguments", 4, 40],
  ] as const) {
    test(`one of the connections that read ${when} is cut in the middle of a packet`, async () => {
      const stage = spoilt((one) => {
        one.prepare = (bus, nth) => {
          if (nth === place) bus.cutAfter(bytes);
        };
      });
      await expectCrash(
        stage,
        0,
        /xenstore (read|directory) \S+: connection lost, cut \d+ bytes into a packet/,
        /look into/,
      );
    });
  }

  test("a connection cut while the guest runs is noticed without anything being asked", async () => {
    const stage = new Stage();
    await stage.running();
    stage.bus.cutAfter(5);
    stage.bus.inject(new Uint8Array(16));
    await expectCrash(stage, 1000, /connection lost, cut 5 bytes into a packet/);
    expect(stage.killed).toEqual(["SIGKILL"]);
    expect(stage.of("warn")).toEqual([]);
  });

  test("a packet with a length that cannot be, while the guest runs", async () => {
    const stage = new Stage();
    await stage.running();
    stage.bus.inject(Uint8Array.of(2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f));
    await expectCrash(stage, 1000, /connection lost, .*2147483647 bytes/);
  });

  test("a daemon that does not answer", async () => {
    const stage = spoilt(({ bus }) => bus.hold());
    await expectCrash(stage, 4000, /no reply to read device\/\S+\/state within 4000 ms/);
    expect(stage.of("warn")).toEqual([]);
  });

  test("a daemon that answers nobody any more, not even those who ask anew", async () => {
    const stage = new Stage();
    await stage.running();
    stage.bus.hold();
    stage.prepare = (bus) => bus.hold();
    stage.bus.cutAfter(0);
    stage.die({ code: 3 });
    await stage.pass(1200);
    expect(stage.of("error")).toHaveLength(1);
    expect(stage.poweredOff).toEqual(["crash"]);
    await stage.pass(5000);
    expect(stage.clock.pending).toBe(0);
  });

  test("a daemon that does not answer one of the connections that read", async () => {
    const stage = spoilt((one) => {
      one.prepare = (bus, nth) => {
        if (nth === 5) bus.hold();
      };
    });
    await expectCrash(stage, 4000, /(read|directory) \S+: no reply in 4000 ms; check/);
  });

  test("a daemon that pauses for 10 s while the guest runs is no reason to end it", async () => {
    const stage = new Stage();
    await stage.running();
    stage.bus.hold();
    const client = await stage.vchans.connect();
    await stage.pass(10_000);
    stage.bus.release();
    await stage.pass(100);
    client.close();
    await stage.pass(100);
    expect([stage.of("error"), stage.of("warn"), stage.poweredOff]).toEqual([[], [], []]);
  });
});

const tenMegabytes = "x".repeat(10 * 1024 * 1024);

describe("QEMU", () => {
  test.each([
    ["is not in the image", "ENOENT", /build it again/],
    ["has more arguments than Linux takes", "E2BIG", /shorten device_model_args_hvm=/],
    ["has no memory", "ENOMEM", /raise stubdomain_memory=/],
  ])("%s", async (_, refused, remedy) => {
    const stage = spoilt(() => {}, { refused });
    const told = new RegExp(`/usr/bin/qemu-system-i386 cannot be executed: ${refused};`);
    await expectCrash(stage, 0, told, remedy);
    expect(stage.kernel.count).toBe(0);
  });

  test("exits at once", async () => {
    const stage = spoilt(() => {}, { silent: true });
    await stage.quiet();
    stage.print("qemu: -drive x: No such file\n");
    stage.die({ code: 1 });
    await expectCrash(
      stage,
      1000,
      /QEMU exited with 1 after 0\.\d s \(its last lines: qemu: -drive x: No such file\); /,
    );
    expect(stage.agent("qemu/exit")).toBe("1");
    expect(stage.kernel.count).toBe(0);
  });

  test("its last lines, however long, leave room for what to do", async () => {
    for (const line of [`${"x".repeat(511)}\n`, `${"\0".repeat(512)}\n`, "short\n"]) {
      const stage = spoilt(() => {}, { silent: true });
      await stage.quiet();
      stage.print(line.repeat(5));
      stage.die({ code: 1 });
      const said = await expectCrash(stage, 1000, /^QEMU exited with 1 .*; its lines above say why; look at/);
      expect(said.length).toBeLessThan(1000);
    }
  });

  test("exits at once and is content with that", async () => {
    const stage = spoilt(() => {}, { silent: true });
    await stage.quiet();
    stage.die({ code: 0 });
    await expectCrash(stage, 1000, /QEMU exited with 0 .*before it answered on QMP/, /device_model_args/);
  });

  test("exits with 0 under a guest that runs: libxl has QEMU stay when a guest shuts down", async () => {
    const stage = new Stage();
    await stage.running();
    await stage.pass(10_000);
    expect(stage.spawned[0]?.argv.map((word) => decodeText(word as Uint8Array))).toContain("-no-shutdown");
    stage.die({ code: 0 });
    await expectCrash(stage, 1000, /QEMU exited with 0 after 10\.\d s, while the guest runs; /);
    expect(stage.agent("qemu/exit")).toBe("0");
  });

  test("hangs before QMP answers: told at 4 s, the end at 12 s", async () => {
    const stage = spoilt(() => {}, { silent: true });
    await stage.pass(4000);
    const [notice = ""] = stage.of("warn");
    expect(notice).toMatch(/^QEMU has not answered on QMP for 4 s.*; .*stubdom.qemu_deadline/);
    expect(stage.agent("error")).toBe(notice);
    await stage.pass(7999);
    expect(stage.poweredOff).toEqual([]);
    await expectCrash(stage, 1, /QEMU did not answer on QMP within 12 s/);
    expect(stage.killed).toEqual(["SIGKILL"]);
    expect(stage.kernel.count).toBe(0);
  });

  test("hangs, and cannot even be killed", async () => {
    const stage = spoilt(() => {}, { silent: true, immortal: true });
    await stage.pass(12_000);
    expect(stage.of("error")).toHaveLength(1);
    await stage.pass(1000);
    expect(stage.killed).toEqual(["SIGKILL"]);
    expect(stage.poweredOff).toEqual(["crash"]);
    expect(stage.clock.pending).toBe(0);
  });

  test("is killed later", async () => {
    const stage = new Stage();
    await stage.running();
    await stage.pass(10_000);
    stage.die({ signal: "SIGKILL" });
    await expectCrash(stage, 1000, /QEMU was killed by SIGKILL after 10\.\d s; .*stubdomain_memory/);
    expect(stage.agent("qemu/exit")).toBe("SIGKILL");
    expect(stage.kernel.count).toBe(0);
  });

  test("takes the guest along if it is told to, and once the guest runs", async () => {
    const stage = new Stage({ commandLine: "stubdom.crash_guest=1" });
    expect(stage.crashesAlong).toEqual([]);
    await stage.running();
    expect(stage.crashesAlong).toEqual([3]);
    const other = new Stage();
    await other.running();
    expect(other.crashesAlong).toEqual([]);
  });

  test("sends a line of 10 MB without a newline before it answers", async () => {
    const stage = spoilt(() => {}, { silent: true });
    await stage.quiet();
    void stage.monitor?.sendText(`{"QMP": "${tenMegabytes}`).catch(() => {});
    for (let turn = 0; turn < 100; turn++) await stage.quiet();
    await expectCrash(stage, 2000, /QEMU's monitor is broken: a message has no end within 524288 bytes/);
  });

  test("sends a line of 10 MB without a newline while the guest runs: told, and the guest runs on", async () => {
    const stage = new Stage();
    await stage.running();
    void stage.monitor?.sendText(`{"event": "${tenMegabytes}`).catch(() => {});
    for (let turn = 0; turn < 100; turn++) await stage.quiet();
    await stage.pass(1000);
    const errors = stage.of("error");
    expect(errors).toHaveLength(1);
    expect(errors[0]).toMatch(
      /^QEMU's monitor is broken: a message has no end within 524288 bytes; the guest runs on, but cannot be saved/,
    );
    expect(stage.agent("error")).toBe(errors[0]);
    expect(stage.agent("phase")).toBe("running");
    expect(stage.poweredOff).toEqual([]);
    expect(stage.clock.pending).toBe(0);
  });
});

describe("in a session of the toolstack, a line of 10 MB without a newline", () => {
  /** Told, and the next session is served. */
  async function expectCut(stage: Stage, says: RegExp): Promise<void> {
    for (let turn = 0; turn < 400 && stage.of("warn").length === 0; turn++) await stage.quiet();
    const [notice = ""] = stage.of("warn");
    expect(notice).toMatch(says);
    await stage.quiet();
    expect(stage.agent("error")).toBe(notice);
    const next = await stage.vchans.connect();
    expect(decodeText((await next.read()) ?? new Uint8Array())).toContain('"QMP"');
    expect([stage.of("error"), stage.poweredOff]).toEqual([[], []]);
  }

  test("from the toolstack", async () => {
    const stage = new Stage();
    await stage.running();
    const client = await stage.vchans.connect();
    void client.write(encodeText(`{"x": "${tenMegabytes}`)).catch(() => {});
    await expectCut(
      stage,
      /^QMP: a session of 0 commands was cut: a message has no end within 1048576 bytes; the next one starts anew$/,
    );
  }, 60_000);

  test("from QEMU", async () => {
    const stage = new Stage();
    await stage.running();
    const client = await stage.vchans.connect();
    // Whatever comes is taken, as by libxl.
    void (async () => {
      while ((await client.read()) !== null);
    })();
    await stage.quiet();
    void stage.sessions[0]?.sendText(`{"event": "${tenMegabytes}`).catch(() => {});
    await expectCut(
      stage,
      /^QMP: a session of 0 commands was cut: a message has no end within 524288 bytes; the next one starts anew$/,
    );
  }, 60_000);
});

describe("an end in order", () => {
  for (const [signal, how] of [
    ["SIGTERM", "reboot"],
    ["SIGUSR2", "poweroff"],
    ["SIGUSR1", "poweroff"],
  ] as const) {
    test(`${signal} is ${how}`, async () => {
      const stage = new Stage();
      await stage.running();
      stage.signal(signal);
      stage.signal(signal);
      await stage.pass(1000);
      expect(stage.agent("phase")).toBe("ended");
      expect(stage.killed).toEqual(["SIGKILL"]);
      expect(stage.poweredOff).toEqual([how]);
      expect([stage.of("error"), stage.of("warn"), stage.clock.pending]).toEqual([[], [], 0]);
      expect(stage.kernel.count).toBe(0);
    });
  }

  test("a failure while it ends changes nothing", async () => {
    const stage = new Stage();
    await stage.running();
    stage.signal("SIGUSR2");
    await stage.stubdom.fail(new Error("late"));
    await stage.pass(1000);
    expect(stage.poweredOff).toEqual(["poweroff"]);
    expect(stage.of("error")).toEqual([]);
  });

  test("the last line is given a second to reach the console", async () => {
    const stage = spoilt(({ daemon, home }) => daemon.remove(`${home}/target`), {
      log: { flush: () => new Promise<void>(() => {}) },
    });
    await stage.pass(999);
    expect(stage.poweredOff).toEqual([]);
    await stage.pass(1);
    expect(stage.poweredOff).toEqual(["crash"]);
    expect(stage.clock.pending).toBe(0);
  });

  test("a xenstored that has stopped does not keep the machine", async () => {
    const stage = new Stage();
    await stage.running();
    stage.bus.hold();
    stage.die({ code: 3 });
    await stage.pass(1200);
    expect(stage.poweredOff).toEqual(["crash"]);
  });
});

test("QEMU dies while its devices are begun to be followed: the toolstack is offered no ring that nobody will close", async () => {
  const stage = new Stage();
  let watched = false;
  stage.daemon.onRequest = (request) => {
    if (request !== "watch device/vbd") return;
    watched = true;
    stage.bus.hold();
    stage.die({ signal: "SIGKILL" });
  };
  void stage.run();
  await stage.pass(100);
  expect([watched, stage.of("error")]).toEqual([
    true,
    [expect.stringMatching(/^QEMU was killed by SIGKILL/)],
  ]);
  stage.bus.release();
  await stage.pass(3000);
  expect(stage.poweredOff).toEqual(["crash"]);
  expect(stage.vchans.offer).toBeUndefined();
});
