/** Passthrough through the whole of PID 1, as libxl asks for it. */
import { expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { Stage } from "./stage.ts";

const deviceAdd =
  '{"execute":"device_add","id":5,"arguments":{"driver":"xen-pci-passthrough","id":"pci-pt-03_00.0","hostaddr":"0000:03:00.0"}}\r\n';

async function session(stage: Stage) {
  const client = await stage.vchans.connect();
  let text = "";
  void (async () => {
    for (let chunk = await client.read(); chunk !== null; chunk = await client.read())
      text += new TextDecoder().decode(chunk);
  })();
  await client.write(encodeText('{"execute":"qmp_capabilities","id":4}\r\n'));
  return { client, text: () => text };
}

/** One that runs, and the commands that reach its QEMU. */
async function recorded() {
  const asked: string[] = [];
  const stage = new Stage({
    execute: (command) => {
      asked.push(command);
      return {};
    },
  });
  await stage.running();
  return { stage, asked };
}

test("device_add waits for the device and reaches QEMU; a save is refused, QEMU is not asked", async () => {
  const { stage, asked } = await recorded();
  const { client, text } = await session(stage);
  await client.write(encodeText(deviceAdd));
  await stage.pass(1000);
  expect(asked).toEqual([]);
  stage.assignPci("0000:03:00.0", "0000:00:00.00");
  stage.pci.show("0000:00:00.0");
  await stage.quiet();
  expect(asked).toEqual(["device_add"]);
  expect(text()).toContain('{"return":{},"id":5}');
  expect(stage.of("info").join("\n")).toMatch(
    /0000:03:00\.0 of the host, 0000:00:00\.0 here: 8086:100e answers/,
  );

  await client.write(
    encodeText(
      '{"execute":"stop","id":6}{"execute":"xen-save-devices-state","arguments":{"filename":"/dev/fdset/1"},"id":7}',
    ),
  );
  await stage.pass(1000);
  expect(asked).toEqual(["device_add", "stop"]);
  expect(text()).toMatch(
    /"error": \{"class":"GenericError","desc":"the guest has PCI device 0000:03:00\.0.*"id": 7/,
  );
  expect([stage.agent("phase"), stage.poweredOff, stage.pci.leaked]).toEqual(["running", [], 0]);
});

test("a USB device of the host's, as xl usbdev-attach asks for it: refused with what to do, and never QEMU's to refuse", async () => {
  const { stage, asked } = await recorded();
  const { client, text } = await session(stage);
  const device = { driver: "usb-host", id: "xenusb-1-2", bus: "xenusb-0.0", hostbus: "0x1", hostaddr: "0x2" };
  await client.write(encodeText(JSON.stringify({ execute: "device_add", id: 5, arguments: device })));
  await stage.quiet();
  expect(asked).toEqual([]);
  expect(text()).toMatch(/"desc":"device_add usb-host: USB devices of the host.*by pci=/);
  expect(stage.of("error")).toHaveLength(1);
  expect(stage.agent("phase")).toBe("running");
});

test("a device that never comes: device_add is refused within libxl's 10 s, and the next session is served", async () => {
  const stage = new Stage();
  await stage.running();
  const { client, text } = await session(stage);
  await client.write(encodeText(deviceAdd));
  await stage.pass(8000);
  expect(text()).toMatch(
    /"error": \{"class":"GenericError","desc":"PCI device 0000:03:00\.0 of the host, without/,
  );
  expect(stage.of("error").join("\n")).toMatch(/device_add: PCI device 0000:03:00\.0/);
  expect(stage.agent("error")).toMatch(/device_add: PCI device 0000:03:00\.0/);
  client.close();
  await stage.quiet();
  const next = await session(stage);
  await stage.quiet();
  expect(next.text()).toContain('"id":4');
  expect([stage.agent("phase"), stage.pci.leaked]).toEqual(["running", 0]);
});

const named = { moreArguments: ["-device", "xen-pci-passthrough,hostaddr=0000:03:00.0"] };

test("a device that QEMU's arguments name is waited for before QEMU is started", async () => {
  const stage = new Stage(named);
  void stage.run();
  await stage.pass(3000);
  expect([stage.spawned.length, stage.agent("phase")]).toEqual([0, "frontends"]);
  stage.assignPci("0000:03:00.0", "0000:00:00.00");
  stage.pci.show("0000:00:00.0");
  await stage.pass(200);
  expect([stage.spawned.length, stage.agent("phase")]).toEqual([1, "running"]);
});

test("one that never comes is the end, with its address in both spaces", async () => {
  const stage = new Stage(named);
  void stage.run();
  stage.assignPci("0000:03:00.0", "0000:00:00.00");
  await stage.pass(8000);
  expect(stage.agent("error")).toMatch(
    /PCI device 0000:03:00\.0 of the host, 0000:00:00\.0 here: our kernel does not/,
  );
  expect([stage.spawned.length, stage.poweredOff, stage.pci.leaked]).toEqual([0, ["crash"], 0]);
});
