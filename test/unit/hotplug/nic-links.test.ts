import { beforeEach, describe, expect, test } from "vitest";
import type { Joint } from "../../../agent/frontends/net/joint.ts";
import type { Link } from "../../../agent/frontends/net/link-messages.ts";
import { NicLinks } from "../../../agent/hotplug/nic-links.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { QmpCommandError, QmpConnectionClosed, QmpTimeout } from "../../../agent/qmp/errors.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { stubdomId, targetId } from "../../fakes/stubdom-tree.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

class FakeJoint implements Joint {
  readonly nic: Joint["nic"];
  readonly kind = "tc";
  readonly front = {} as Link;
  readonly tap = {} as Link;
  readonly descriptor = 5;
  readonly ended: Promise<void>;
  torn = 0;
  end: () => void = () => {};

  constructor(devid: number) {
    this.nic = { devid, mac: `00:16:3e:00:00:0${devid}` };
    this.ended = new Promise((resolve) => {
      this.end = resolve;
    });
  }

  handedOver(): void {}

  async tearDown(): Promise<void> {
    this.torn++;
    this.end();
  }
}

const backend = (devid: number, domid = 0) => `/local/domain/${domid}/backend/vif/${targetId}/${devid}`;

let daemon: FakeXenstored;
let joints: FakeJoint[];
let commands: string[];
let warnings: string[];
let complaints: string[];
let refusal: Error | undefined;
/** What QEMU has, by its ids. */
let emulated: string[];
let links: NicLinks;

async function quiet(): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await settle();
}

/** As libxl does it: unreadable until it is there. */
async function attach(devid: number, domid = 0): Promise<void> {
  daemon.set(backend(devid, domid), "", domid);
  daemon.permit(backend(devid, domid), [
    { domid, access: "none" },
    { domid: targetId, access: "read" },
  ]);
  daemon.set(`${backend(devid, domid)}/online`, "1", domid);
  daemon.set(`${backend(devid, domid)}/state`, "2", domid);
  await quiet();
}

beforeEach(async () => {
  daemon = new FakeXenstored();
  daemon.setTarget(stubdomId, targetId);
  daemon.set("/local/domain/0/backend", "");
  daemon.permit("/local/domain/0/backend", [{ domid: 0, access: "none" }]);
  joints = [new FakeJoint(0), new FakeJoint(1)];
  for (const { nic } of joints) {
    const own = `/local/domain/${stubdomId}/device/vif/${nic.devid}/backend`;
    daemon.set(own, `/local/domain/0/backend/vif/${stubdomId}/${nic.devid}`, stubdomId);
  }
  commands = [];
  warnings = [];
  complaints = [];
  refusal = undefined;
  emulated = ["nic0", "nic1"];
  links = new NicLinks({
    store: new XenstoreClient(daemon.connect(stubdomId), new FakeClock()),
    qmp: {
      execute: async (command, args) => {
        commands.push(`${command} ${JSON.stringify(args)}`);
        if (refusal !== undefined) throw refusal;
        return command === "qom-list" ? emulated.map((name) => ({ name, type: "child<e1000>" })) : {};
      },
    },
    log: { ...silentLogger, warn: (_, line) => void warnings.push(line) },
    target: targetId,
    nics: joints.map((joint) => ({ joint, netdev: `net${joint.nic.devid}` })),
    complain: (text) => void complaints.push(text),
  });
});

/** From when QEMU takes commands. */
async function follow(): Promise<void> {
  await links.follow();
  await quiet();
}

test("a joint that ends before QEMU takes commands is not forgotten", async () => {
  refusal = new QmpConnectionClosed("QMP set_link: the connection is greeting");
  joints[1]?.end();
  await quiet();
  expect([commands, complaints]).toEqual([[], []]);
  refusal = undefined;
  await follow();
  expect(commands).toEqual([down("net1")]);
  expect(complaints).toEqual([expect.stringMatching(/^NIC 1 .*: our frontend is gone/)]);
});

const down = (name: string) => `set_link {"name":"${name}","up":false}`;

describe("a NIC of a running guest", () => {
  beforeEach(follow);

  test("is not detached before it was attached, nor by what its driver does", async () => {
    await attach(0);
    await attach(1);
    // A guest's PV driver comes up, and is closed at a reboot from within.
    for (const state of ["4", "5", "6", "2"]) daemon.set(`${backend(0)}/state`, state);
    await quiet();
    expect([commands, joints.map(({ torn }) => torn), warnings]).toEqual([[], [0, 0], []]);
  });

  test("that dom0 detaches loses its way and its link, alone and once", async () => {
    await attach(0);
    await attach(1);
    daemon.set(`${backend(1)}/online`, "0");
    daemon.set(`${backend(1)}/state`, "5");
    await quiet();
    expect(joints.map(({ torn }) => torn)).toEqual([0, 1]);
    expect(commands).toEqual([down("net1")]);
    expect(warnings).toEqual([
      "NIC 1 (00:16:3e:00:00:01): it was detached in dom0, the guest's emulated link goes down",
    ]);
    daemon.remove(backend(1));
    await attach(1);
    daemon.remove(backend(1));
    await quiet();
    expect(commands).toHaveLength(1);
    expect(daemon.watchCount).toBe(1);
  });

  test("whose backend vanishes without a word loses both too", async () => {
    await attach(0);
    daemon.remove(backend(0));
    await quiet();
    expect([commands, joints[0]?.torn]).toEqual([[down("net0")], 1]);
  });

  test("whose joint has ended for another reason loses its link", async () => {
    joints[0]?.end();
    await quiet();
    expect([commands, warnings]).toEqual([[down("net0")], []]);
    // The joint's own line has no remedy, and dom0 does not look there.
    expect(complaints).toEqual([
      expect.stringMatching(/^NIC 0 \(00.*\): our frontend is gone, .*; shut the guest down and start it/),
    ]);
  });

  test("that the guest has unplugged is no fault", async () => {
    refusal = new QmpCommandError("set_link", "DeviceNotFound", "net0");
    joints[0]?.end();
    await quiet();
    expect([commands, complaints]).toEqual([[down("net0")], []]);
  });
});

describe("a QEMU that does not take the link down", () => {
  beforeEach(follow);

  test.each([
    ["has no such NIC any more", new QmpCommandError("set_link", "DeviceNotFound", "net0"), 0],
    ["has ended", new QmpConnectionClosed("QMP: closed"), 0],
    ["refuses", new QmpCommandError("set_link", "GenericError", "no"), 1],
    ["hangs", new QmpTimeout("set_link", 5000), 1],
  ])("because it %s", async (_, error, complained) => {
    refusal = error;
    await attach(0);
    daemon.remove(backend(0));
    await quiet();
    expect(joints[0]?.torn).toBe(1);
    expect(complaints).toHaveLength(complained);
    for (const text of complaints)
      expect(text).toMatch(/^NIC 0 \(00.*\): no frame passes any more, but .*; set it down in the guest$/);
  });
});

test("at the end nothing is asked of xenstored, which may be stuck, and joints that end are nobody's concern", async () => {
  await follow();
  links.stop();
  links.stop();
  joints[0]?.end();
  await quiet();
  expect([commands, daemon.watchCount]).toEqual([[], joints.length]);
});

describe("a guest is saved", () => {
  beforeEach(follow);

  test("with all its NICs, and with one that only the stub domain has lost, without a question", async () => {
    await attach(0);
    joints[1]?.end();
    await quiet();
    expect(await links.keepsFromSaving()).toBeUndefined();
    expect(commands).toEqual([down("net1")]);
  });

  test("not while one that was detached is emulated still: no QEMU would take that state", async () => {
    await attach(0);
    await attach(1);
    // Its joint first, as it goes with the stub domain's own vif.
    joints[1]?.end();
    await quiet();
    daemon.remove(backend(1));
    await quiet();
    expect(await links.keepsFromSaving()).toMatch(
      /^NIC 1 \(00:16:3e:00:00:01\): detached in dom0, .* shut the guest down/,
    );
    emulated = ["nic0", "ide-768"];
    expect(await links.keepsFromSaving()).toBeUndefined();
  });
});
