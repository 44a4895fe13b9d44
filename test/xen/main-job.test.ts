/**
 * The main job on an unmodified Xen: guests created by plain `xl create` whose QEMU runs in our stub domain.
 * One host for all of it; the numbers are those of the bars that the project holds itself to.
 */

import { statSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { bootGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { phase, rounds } from "./support.ts";

let host: LabHost;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  console.log(`dom0 answers after ${(host.bootTime / 1000).toFixed(1)} s`);
});

afterAll(async () => {
  await host?.stop();
});

describe("the image", () => {
  it("is at most 8.0 MB of kernel and ramdisk, the agent at most 3.0 MB", () => {
    const size = (name: string) => statSync(`dist/${name}`).size;
    expect(size("stubdom-linux-kernel") + size("stubdom-linux-ramdisk")).toBeLessThanOrEqual(8_000_000);
    expect(size("stubdom")).toBeLessThanOrEqual(3_000_000);
  });
});

const boots = 1 + rounds(1, 3);

describe("a guest with a disk, a NIC and 64 MiB of stub domain", () => {
  let guest: Guest;

  beforeAll(async () => {
    const options = {
      onSerial: (line: string) => process.env.LAB_SERIAL && console.log(line),
      name: "main",
      images: { hda: await guestDisk({ jobs: ["sha256", `reboot:${boots}`], cmdline: "quiet" }) },
      nics: [{ mac: "00:16:3e:00:00:01", bridge: "xenbr0", model: "e1000" }],
      stubdom: { memory: 64 },
      // "quiet" for the guest, because each character on its serial port is a trap too.
      // The firmware reads an IDE disk word by word, each a trap into the stub domain: minutes, under emulation.
      extra: { hdtype: "ahci" },
    };
    guest = await bootGuest(host, options, "guest: boots 1", 400);
  });

  afterAll(async () => {
    await guest?.destroy();
  });

  it(`boots from its disk, reboots ${boots - 1} times, and runs on`, async () => {
    const began = Date.now();
    await guest.waitForSerial("guest: nic eth0 00:16:3e:00:00:01 e1000", 30);
    for (let boot = 2; boot <= boots; boot++) {
      await guest.waitForSerial(`guest: boots ${boot}`, 240);
      console.log(`boot ${boot} after ${((Date.now() - began) / 1000).toFixed(0)} s`);
    }
    await guest.waitForSerial("guest: ready", 120);
    // Each life has a stub domain of its own, and so a log; xl keeps those before.
    for (let life = 0; life < boots; life++) {
      const name = `/var/log/xen/qemu-dm-main.log${life === 0 ? "" : `.${life}`}`;
      const { stdout: log } = await host.run(["cat", name]);
      const least = [...log.matchAll(/low-water mark (\d+) KiB/g)].at(-1)?.[1];
      console.log(`${name}: low-water mark ${least} KiB of a 64 MiB stub domain`);
      expect(Number(least), name).toBeGreaterThan(4096);
      expect(log).not.toMatch(/ error /);
    }
  });

  it("tells dom0 what it does", async () => {
    const agent = await guest.agent();
    expect(agent).toMatchObject({ phase: "running", version: expect.stringMatching(/^\d+\.\d+\.\d+$/) });
    expect(Number(agent["qemu/pid"])).toBeGreaterThan(1);
    expect(phase(agent, "running")).toBeGreaterThan(phase(agent, "qemu-start"));
    expect(agent.error ?? "").toBe("");
  });

  it("answers 100 QMP sessions back to back on libxl's socket", async () => {
    const client = `
import json, socket, sys
for n in range(100):
    s = socket.socket(socket.AF_UNIX); s.settimeout(20); s.connect(sys.argv[1]); f = s.makefile("rb")
    assert "QMP" in json.loads(f.readline())
    for command, key in (("qmp_capabilities", None), ("query-status", "running")):
        s.sendall(json.dumps({"execute": command}).encode() + b"\\n")
        answer = json.loads(f.readline())
        while "event" in answer: answer = json.loads(f.readline())
        assert "return" in answer and (key is None or answer["return"][key] is True), answer
    s.close()
print("all answered")
`;
    const socket = `/var/run/xen/qmp-libxl-${await guest.domid()}`;
    const began = Date.now();
    const { stdout } = await host.run(["python3", "-", socket], { input: client, timeout: 400 });
    expect(stdout.trim()).toBe("all answered");
    console.log(`100 QMP sessions in ${((Date.now() - began) / 1000).toFixed(1)} s`);
  });
});
