import { expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { discoverFrontends } from "../../../agent/frontends/discover.ts";
import { neededFrontends, unemulatedDisks, unemulatedSerials } from "../../../agent/init/needed.ts";
import { readDmArguments } from "../../../agent/qemu/dm-argv.ts";
import { stateDevice } from "../../../agent/savestate/state-device.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { FakeClock } from "../../fakes/clock.ts";
import { StubdomTree, stubdomId } from "../../fakes/stubdom-tree.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

function argumentsOf(words: string) {
  return readDmArguments(`qemu -xen-domid 5 ${words}`.split(" ").map(encodeText), 5);
}

test("the log names what QEMU does not emulate: disks and CD drives without a place, empty ones too", async () => {
  const daemon = new FakeXenstored();
  const tree = new StubdomTree(daemon);
  const xvd = (disk: number) => (202 << 8) | (disk << 4);
  tree.disk(xvd(0), "xvda");
  tree.disk(xvd(2), "xvdc", { cdrom: true, mode: "r", params: "aio:" });
  tree.disk(xvd(6), "xvdg");
  tree.disk(xvd(7), "xvdh", { cdrom: true, mode: "r", params: "aio:" });
  const found = await discoverFrontends(new XenstoreClient(daemon.connect(stubdomId), new FakeClock()));
  const dm = argumentsOf("-drive file=/dev/xvda,if=none,id=a -drive if=none,readonly=on,id=c");
  const notes = unemulatedDisks(found, dm);
  expect(notes.map((note) => note.slice(0, note.indexOf(" is not emulated")))).toEqual([
    `disk xvdg (device/vbd/${xvd(6)})`,
    `CD drive xvdh (device/vbd/${xvd(7)})`,
  ]);
  // xl knows no hde.
  expect(notes[0]).toContain(
    'QEMU has hda to hdd, with hdtype="ahci" xvde and xvdf for disks too, and sda to sdg',
  );
});

test.each([
  [51713, "xvda1", "xvda"],
  [2048 + 3, "sda3", "sda"],
])("a partition in disk= is refused by name: %i", async (number, vdev, whole) => {
  const daemon = new FakeXenstored();
  new StubdomTree(daemon).disk(number, vdev);
  const found = await discoverFrontends(new XenstoreClient(daemon.connect(stubdomId), new FakeClock()));
  expect(() => neededFrontends(found, argumentsOf("-drive file=/dev/xvda,if=ide"))).toThrow(
    `(device/vbd holds disk ${vdev}); name the whole disk in disk=, ${whole}, and not ${vdev}`,
  );
});

test("a disk of the state disk's name is refused, with what to do", async () => {
  const daemon = new FakeXenstored();
  new StubdomTree(daemon).disk(stateDevice.number, "xvdzz");
  const found = await discoverFrontends(new XenstoreClient(daemon.connect(stubdomId), new FakeClock()));
  expect(() => neededFrontends(found, argumentsOf("-M xenfv"))).toThrow(
    /^disk xvdzz \(device\/vbd\/268614912\) has the name of the disk .*; give it another name in disk= /,
  );
});

test("the log names serial ports beyond QEMU's four, which it would leave out without a word", () => {
  const ports = (count: number) =>
    argumentsOf(Array.from({ length: count }, (_, n) => `-serial /dev/hvc${3 + n}`).join(" "));
  expect(unemulatedSerials(ports(4))).toEqual([]);
  expect(unemulatedSerials(ports(5))).toEqual([
    "/dev/hvc7 is no serial port of the guest's: QEMU has 4 of them; shorten serial= in the guest's configuration",
  ]);
});
