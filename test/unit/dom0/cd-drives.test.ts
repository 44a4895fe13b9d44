import { afterEach, beforeEach, describe, expect, test } from "vitest";
import type { BackendQemu } from "../../../agent/dom0/backend-qemu.ts";
import {
  BackendCdDrives,
  blockNode,
  type CdBackend,
  type Medium,
  nodesOf,
  QmpCdBackend,
} from "../../../agent/dom0/cd-drives.ts";
import { type Logger, silentLogger } from "../../../agent/log/logger.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { QmpClient } from "../../../agent/qmp/client.ts";
import { QmpTimeout } from "../../../agent/qmp/errors.ts";
import type { JsonValue } from "../../../agent/qmp/json.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { fakePlatform } from "../../fakes/platform.ts";
import { FakeQemuMonitor, Refusal } from "../../fakes/qemu.ts";
import { memoryStream } from "../../fakes/stream.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

const node = "/local/domain/0/backend/qdisk/5/5632";

describe("the nodes of a stub domain's CD drives", () => {
  let daemon: FakeXenstored;
  let xenstore: XenstoreClient;
  let clock: FakeClock;
  let drives: BackendCdDrives;
  let lines: string[];
  let asked: string[];
  let failure: Error | undefined;
  let stuck: Error | undefined;

  const qemu: CdBackend = {
    async serve({ id, vdev, params }: Medium) {
      asked.push(`serve ${id} ${vdev} ${params}`);
      if (failure !== undefined) throw failure;
      // As QEMU does it.
      daemon.set(`${node}/hotplug-status`, "connected");
      daemon.set(`${node}/state`, "2");
    },
    async release(id: number) {
      asked.push(`release ${id}`);
      if (stuck !== undefined) throw stuck;
    },
  };

  beforeEach(() => {
    daemon = new FakeXenstored();
    clock = new FakeClock();
    xenstore = new XenstoreClient(daemon.connect(0), clock);
    lines = [];
    asked = [];
    failure = stuck = undefined;
    drives = follower();
  });

  afterEach(() => {
    drives.stop();
    xenstore.close();
  });

  function follower(): BackendCdDrives {
    const say = (_: object, text: string) => void lines.push(text);
    const log = { info: say, error: say } as unknown as Logger;
    return new BackendCdDrives({ platform: { ...fakePlatform(), clock }, xenstore, log }, 5, qemu);
  }

  /** Longer than the looks at one drive are apart, a few times over. */
  async function quiet(): Promise<void> {
    for (let look = 0; look < 6; look++) {
      for (let turn = 0; turn < 20; turn++) await settle();
      await clock.advance(20);
    }
  }

  /** As libxl makes a drive: the old directory goes, the new one comes. */
  async function replaced(params: string, type = "cdrom"): Promise<void> {
    if (daemon.get(`${node}/state`) !== undefined) daemon.remove(node);
    const nodes = { "device-type": type, dev: "hdc", mode: "r", online: "1", params, state: "1" };
    for (const [name, value] of Object.entries(nodes)) daemon.set(`${node}/${name}`, value);
    await quiet();
  }

  async function closing(): Promise<string | undefined> {
    daemon.set(`${node}/online`, "0");
    daemon.set(`${node}/state`, "5");
    await quiet();
    return daemon.get(`${node}/state`);
  }

  test("a drive with a medium is QEMU's own affair, from the start to the end", async () => {
    await replaced("aio:/a.iso");
    await drives.start();
    await quiet();
    daemon.set(`${node}/hotplug-status`, "connected");
    daemon.set(`${node}/state`, "4");
    await quiet();
    expect(await closing()).toBe("5");
    await replaced("aio:/b.iso");
    expect(asked).toEqual([]);
  });

  test("an empty drive is closed, and what is inserted then is served, again and again", async () => {
    await drives.start();
    await quiet();
    for (const image of ["/a.iso", "/b.iso"]) {
      await replaced("empty:");
      daemon.set(`${node}/params`, "");
      expect(await closing()).toBe("6");
      await replaced(`aio:${image}`);
      expect(daemon.get(`${node}/state`)).toBe("2");
      expect(daemon.get(`${node}/served-by`)).toBe("stubdom");
      // QEMU closes what it has.
      expect(await closing()).toBe("5");
    }
    expect(asked).toEqual([
      "release 5632",
      "serve 5632 hdc aio:/a.iso",
      "release 5632",
      "release 5632",
      "serve 5632 hdc aio:/b.iso",
    ]);
    expect(lines.filter((line) => line.includes("/b.iso"))).toEqual([
      "domain 5: hdc has aio:/b.iso, by dom0's QEMU",
    ]);
  });

  test("a medium that follows another one without an eject has the former given back", async () => {
    await replaced("aio:");
    await drives.start();
    await quiet();
    await closing();
    await replaced("aio:/a.iso");
    await replaced("aio:/b.iso");
    expect(asked).toEqual([
      "release 5632",
      "serve 5632 hdc aio:/a.iso",
      "release 5632",
      "serve 5632 hdc aio:/b.iso",
    ]);
  });

  test("a helper that starts later knows by its mark whose the drive is", async () => {
    await replaced("empty:");
    await drives.start();
    await quiet();
    await replaced("aio:/a.iso");
    drives.stop();
    drives = follower();
    await drives.start();
    await quiet();
    await replaced("aio:/b.iso");
    expect(asked).toEqual([
      "release 5632",
      "serve 5632 hdc aio:/a.iso",
      "release 5632",
      "serve 5632 hdc aio:/b.iso",
    ]);
  });

  test("what cannot be served is said once, and the next medium is tried again", async () => {
    await replaced("empty:");
    await drives.start();
    await quiet();
    failure = new Error("no such file");
    await replaced("aio:/a.iso");
    daemon.set(`${node}/params`, "aio:/a.iso");
    await quiet();
    expect(lines).toEqual(["domain 5: its CD drives: Error: no such file"]);
    failure = undefined;
    expect(await closing()).toBe("6");
    await replaced("aio:/b.iso");
    expect(daemon.get(`${node}/state`)).toBe("2");
  });

  test("an image that is not given back keeps no other one out", async () => {
    await replaced("empty:");
    await drives.start();
    await quiet();
    stuck = new Error("still in use");
    await replaced("aio:/a.iso");
    expect(asked.at(-1)).toBe("serve 5632 hdc aio:/a.iso");
    expect(daemon.get(`${node}/state`)).toBe("2");
    expect(lines[0]).toBe("domain 5: its CD drives: Error: still in use");
  });

  test("one that answers late is served all the same, and so is the next", async () => {
    await replaced("empty:");
    await drives.start();
    await quiet();
    failure = new Error("no answer within 30 s");
    await replaced("aio:/a.iso");
    failure = undefined;
    // It has it by now.
    daemon.set(`${node}/hotplug-status`, "connected");
    daemon.set(`${node}/state`, "4");
    await quiet();
    await replaced("aio:/b.iso");
    expect(asked.at(-1)).toBe("serve 5632 hdc aio:/b.iso");
  });

  test("the mark is there before QEMU is asked: a helper that ends in between leaves it to the next", async () => {
    await replaced("empty:");
    await drives.start();
    await quiet();
    failure = new Error("ended");
    await replaced("aio:/a.iso");
    failure = undefined;
    await drives.stop();
    drives = follower();
    await drives.start();
    await quiet();
    expect(asked.filter((line) => line.startsWith("serve"))).toHaveLength(2);
    expect(daemon.get(`${node}/state`)).toBe("2");
  });

  test("a frontend that never rests is looked at once in 20 ms", async () => {
    await replaced("aio:/a.iso");
    await drives.start();
    await quiet();
    const before = daemon.requests.length;
    const began = clock.now();
    for (let n = 0; n < 400; n++) {
      daemon.set(`${node}/state`, n % 2 === 0 ? "2" : "4");
      await clock.advance(1);
    }
    await quiet();
    const looks = (clock.now() - began) / 20 + 2;
    expect(daemon.requests.length - before).toBeLessThan(looks * 9);
    expect(daemon.requests.length - before).toBeGreaterThan(400 / 20);
  });

  test("disks, and all drives after the end, are left alone", async () => {
    await drives.start();
    await replaced("empty:", "disk");
    expect(await closing()).toBe("5");
    await replaced("empty:");
    drives.stop();
    expect(await closing()).toBe("5");
    expect(asked).toEqual([]);
  });

  test("a node that goes while it is looked at does not come back", async () => {
    await drives.start();
    await replaced("empty:");
    daemon.set(`${node}/state`, "5");
    daemon.remove(node);
    await quiet();
    expect(daemon.get(`${node}/state`)).toBeUndefined();
  });
});

describe("dom0's QEMU", () => {
  const journal: string[] = [];
  let nodes: JsonValue[];
  let refused: string | undefined;
  let deleted: string | undefined;
  let version: [number, number];
  let clock: FakeClock;

  /** A conversation with a monitor that knows these nodes. */
  const talk: BackendQemu["talk"] = async (body, onEvent) => {
    const [ours, theirs] = memoryStream();
    const monitor: FakeQemuMonitor = new FakeQemuMonitor(theirs, {
      async execute(command, args) {
        journal.push(`${command} ${JSON.stringify(args)}`);
        if (command === "query-version") return { qemu: { major: version[0], minor: version[1], micro: 0 } };
        if (command === "query-named-block-nodes") return nodes;
        if (command !== refused) return {};
        refused = undefined;
        if (deleted !== undefined) await monitor.event("DEVICE_DELETED", { device: deleted, path: "/x" });
        throw new Refusal("GenericError", "Node is in use");
      },
    });
    const passing = { ...ours, read: () => ours.read(), write: (b: Uint8Array) => ours.write(b) };
    const qmp = new QmpClient(
      { ...passing, close: () => ours.close(), writeWith: (bytes) => ours.write(bytes) },
      { clock, log: silentLogger, ...(onEvent && { onEvent }) },
    );
    try {
      await qmp.handshake(1000);
      return await body(qmp);
    } finally {
      qmp.close();
    }
  };

  const backend = () => {
    const files = {
      ...fakePlatform().files,
      status: () => ({ kind: "file", size: 1, mode: 0o644 }) as const,
    };
    return new QmpCdBackend({ clock, files }, { talk });
  };

  beforeEach(() => {
    journal.length = 0;
    nodes = [];
    refused = deleted = undefined;
    version = [10, 0];
    clock = new FakeClock();
  });

  test("gets an image and a drive for it", async () => {
    await backend().serve({ id: 5632, vdev: "hdc", params: "aio:/a.iso" });
    const name = /"node-name":"(stubdom-cd-5632-\d+)"/.exec(journal[1] ?? "")?.[1];
    expect(journal.slice(1)).toEqual([
      `blockdev-add {"node-name":"${name}","driver":"raw","read-only":true,"file":{"driver":"file","filename":"/a.iso","read-only":true,"locking":"off"}}`,
      `device_add {"driver":"xen-cdrom","id":"${name}","vdev":"hdc","drive":"${name}"}`,
    ]);
  });

  test.each([
    [8, 1, false],
    [8, 2, true],
    [7, 2, false],
    [9, 0, true],
  ])(
    "%i.%i gets one from us: %s; before 8.2 it takes up each new medium itself",
    async (major, minor, gets) => {
      version = [major, minor];
      await backend().serve({ id: 5632, vdev: "hdc", params: "aio:/a.iso" });
      expect(journal.length > 1).toBe(gets);
    },
  );

  test("keeps no image of a drive that it refuses", async () => {
    refused = "device_add";
    await expect(backend().serve({ id: 5632, vdev: "hdc", params: "aio:/a.iso" })).rejects.toThrow("in use");
    expect(journal.at(-1)).toMatch(/^blockdev-del /);
  });

  test("gives back what is this drive's, and waits for what is still in use", async () => {
    nodes = [
      { "node-name": "stubdom-cd-5632-1" },
      { "node-name": "stubdom-cd-5696-1" },
      { "node-name": "#b" },
    ];
    refused = "blockdev-del";
    deleted = "stubdom-cd-5632-1";
    await backend().release(5632);
    const removal = 'blockdev-del {"node-name":"stubdom-cd-5632-1"}';
    expect(journal).toEqual(['query-named-block-nodes {"flat":true}', removal, removal]);
  });

  test("is waited for five seconds", async () => {
    nodes = [{ "node-name": "stubdom-cd-5632-1" }];
    refused = "blockdev-del";
    const released = backend().release(5632);
    released.catch(() => {});
    for (let turn = 0; turn < 60; turn++) await settle();
    clock.advance(5_000);
    await expect(released).rejects.toThrow(QmpTimeout);
  });
});

test("an answer that is no list holds no nodes", () => {
  for (const answer of [null, {}, [null], [{}], [{ "node-name": 1 }]])
    expect(nodesOf(5632, answer)).toEqual([]);
});

test.each([
  ["aio:/a.iso", "file", "raw", "file", "/a.iso"],
  ["aio:/dev/sr0", "block", "raw", "host_device", "/dev/sr0"],
  ["qcow2:/a:b.img", "file", "qcow2", "file", "/a:b.img"],
  ["vhd:/a.vhd", "file", "vpc", "file", "/a.vhd"],
  ["/plain", "file", "raw", "file", "/plain"],
] as const)("%s is opened as QEMU itself opens it", (params, kind, driver, protocol, filename) => {
  const files = { status: () => ({ kind, size: 1, mode: 0o644 }) };
  expect(blockNode("n", params, files)).toEqual({
    "node-name": "n",
    driver,
    "read-only": true,
    file: { driver: protocol, filename, "read-only": true, locking: "off" },
  });
});

test("a link to a block device is one, as QEMU takes it", () => {
  const status = (_: string, links?: "follow") =>
    ({ kind: links === "follow" ? "block" : "symlink", size: 0, mode: 0o660 }) as const;
  expect(blockNode("n", "aio:/dev/cdrom", { status })).toMatchObject({ file: { driver: "host_device" } });
});

test("an image that the helper does not see is QEMU's to open", () => {
  const files = {
    status: (path: string): never => {
      throw new SystemError("ENOENT", "stat", path);
    },
  };
  expect(blockNode("n", "aio:/home/x.iso", files)).toMatchObject({
    file: { driver: "file", filename: "/home/x.iso" },
  });
});
