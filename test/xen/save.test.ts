/**
 * `xl save`, `xl save -c` and `xl restore` of a guest whose QEMU runs in our stub domain, with unmodified xl and
 * QEMU: over the state disk, over the consoles, and when something is in the way.
 */

import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { bootGuest, Guest } from "../../scripts/lab/guest.ts";
import { helperLog, installHelper, program, startHelper, stopHelper } from "../../scripts/lab/helper.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { expectNoLeaks, expectWorking, prepareNetwork, workingDisk } from "./save-support.ts";
import { full, inStubdom, rounds, spread, tellOnFailure, withShell } from "./support.ts";

const cycles = rounds(1, 30);
let host: LabHost;
let guest: Guest;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  await prepareNetwork(host);
  await installHelper(host);
  await startHelper(host);
  const options = {
    name: "mover",
    images: { hda: await workingDisk(host), hdb: 2 },
    nics: [{ mac: "00:16:3e:00:00:02", bridge: "xenbr0", model: "e1000" }],
    extra: { hdtype: "ahci" },
    stubdom: withShell,
    timeout: 300,
  };
  guest = await bootGuest(host, options, "guest: script work 3", 900);
}, 1_500_000);

afterAll(async () => {
  await host?.stop();
});

tellOnFailure(() => ({ host, guest }), "mover");

afterEach(async () => {
  await expectNoLeaks(host);
});

async function save(file = "/root/state", ...words: readonly string[]): Promise<void> {
  await host.run(["xl", "save", ...words, "mover", file], { timeout: 300 });
}

/** Restored guests have a new console; two who follow one would each get a part of it. */
async function restore(file = "/root/state"): Promise<void> {
  guest.leave();
  const began = Date.now();
  await host.run(["xl", "restore", file], { timeout: 300 });
  guest = new Guest(host, "mover", Date.now() - began, true);
}

/**
 * `xl save`, of which no end is awaited: it must fail. Resolves when dom0 has attached the state disk, with a promise of
 * that failure; rejects when the save ends before.
 */
async function failingSave(file?: string): Promise<{ failed: Promise<void> }> {
  const saving = save(file);
  const failed = expect(saving).rejects.toThrow(/exit status/);
  const node = "/local/domain/0/backend/vbd/$(xl domid mover-dm)/268614912/state";
  failed.catch(() => {}); // The caller looks at it when all is attached.
  const attached = host.run(`until xenstore-exists ${node}; do sleep 0.02; done`, { timeout: 120 });
  attached.catch(() => {}); // The race is over by then.
  const early = saving.then(() => Promise.reject(new Error("xl save has succeeded, with no state disk")));
  await Promise.race([attached, early]);
  return { failed };
}

describe("in trouble", () => {
  it("no room for the state: xl fails, the guest goes on", async () => {
    await stopHelper(host);
    await startHelper(host, "--limit 32K");
    await expect(save()).rejects.toThrow(/exit status/);
    expect(await guest.qemuDmLog()).toMatch(/save: failed: .*limit for one stub domain is 32768/);
    await expectWorking(guest);
    await stopHelper(host);
    await startHelper(host);
  });

  it("a state disk that cannot be read, keeps nothing or changes a byte: xl fails, the guest goes on", async () => {
    const disk = "/dev/mapper/flaky";
    const faults = { error_reads: 1, drop_writes: 1, "corrupt_bio_byte 4100 r 170 0": 5 };
    await stopHelper(host);
    await host.run(
      `modprobe dm-flakey && truncate -s 16M /root/flaky && loop=$(losetup -f --show /root/flaky) &&
       dmsetup create flaky --table "0 32768 linear $loop 0"`,
    );
    for (const [fault, words] of Object.entries(faults)) {
      await host.run(
        `dmsetup suspend flaky && dmsetup load flaky --table "0 32768 flakey $(losetup -n -O NAME -j /root/flaky | tr -d ' ') 0 0 600 ${words} ${fault}" &&
         dmsetup resume flaky`,
      );
      await startHelper(host, `--device ${disk}`);
      await expect(save(), fault).rejects.toThrow(/exit status/);
      expect((await host.run("ls -A /var/lib/xen")).stdout).not.toContain("save");
      await expectWorking(guest);
      await stopHelper(host);
      console.log(`${fault}: ${(await guest.qemuDmLog()).match(/save: failed: .*/g)?.at(-1)}`);
    }
    const log = await guest.qemuDmLog();
    expect(log).toMatch(/save: failed: cannot read byte 0 of the state disk: EIO; see dom0's kernel log/);
    expect(log).toMatch(/save: failed: .*state refused, byte 0: no state was ever completed here/);
    expect(log).toMatch(/save: failed: .*state refused, byte 4096: .* where the anchor/);
    await host.run("dmsetup remove flaky && losetup -d $(losetup -n -O NAME -j /root/flaky)");
    await startHelper(host);
  });

  it("the helper killed while saving: xl fails, the guest goes on, the next helper clears up", async () => {
    const { failed } = await failingSave();
    await stopHelper(host, "KILL");
    await failed;
    await expectWorking(guest);
    await startHelper(host);
  });
});

/**
 * A disk that boots into: 8 bits a place for the Cirrus card (graphics controller, register 0Bh), so that its window is no
 * memory, which a picture drawn through its registers does as well; then a word to the serial port; then nothing any more.
 */
function drawingDisk(): string {
  const words = Buffer.from("guest: drawing\n\0");
  const code = Buffer.from(
    `fb bac403 b80612 ef bace03 b80b02 ef be217c baf803 2eac 84c0 7403 ee ebf7 f4 ebfd`.replaceAll(" ", ""),
    "hex",
  );
  const sector = Buffer.alloc(512);
  Buffer.concat([code, words]).copy(sector);
  sector.writeUInt16LE(0xaa55, 510);
  const file = join(host.directory, "drawing.img");
  writeFileSync(file, Buffer.concat([sector, Buffer.alloc(1 << 20)]));
  return file;
}

it.runIf(full)(
  "a state of the Cirrus card that no QEMU could read back: xl fails, the guest goes on",
  async () => {
    const options = { name: "drawing", images: { hda: drawingDisk() }, extra: { vga: "cirrus" } };
    const drawing = await bootGuest(host, options, "guest: drawing", 120);
    onTestFinished(() => drawing.destroy());
    await expect(host.run("xl save drawing /root/drawing.state", { timeout: 300 })).rejects.toThrow(
      /exit status/,
    );
    expect(await drawing.qemuDmLog()).toMatch(/save: failed: .* no QEMU could restore that/);
    const { stdout } = await host.run(["xl", "qemu-monitor-command", "drawing", "info status"]);
    expect(stdout).toContain("running");
  },
);

/**
 * Where a state of QEMU's has the time of day, which goes on while all else stands still: the first thing in the real-time clock's
 * section are the 128 bytes of its CMOS (hw/rtc/mc146818rtc.c of QEMU 10, vmstate_rtc).
 */
function timeOfDay(state: Buffer): number[] {
  const name = "mc146818rtc";
  const at = state.indexOf(name);
  if (at < 0) throw new Error(`no section ${name} in a state of ${state.length} bytes`);
  const [instance, version] = [4, 4];
  const cmos = at + name.length + instance + version;
  // Seconds, minutes, hours; day of the week, day, month, year; century.
  return [0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32].map((register) => cmos + register);
}

describe("over the state disk", () => {
  it("a checkpoint: the guest goes on", async () => {
    await save("/root/checkpoint", "-c");
    await expectWorking(guest);
    expect(await guest.qemuDmLog()).toMatch(/save: \d+ bytes of device state over the state disk/);
  });

  it("the device state alone, by our own command: byte for byte what QEMU itself writes, and the guest goes on", async () => {
    // Nothing moves from here to the end of our command but the real-time clock.
    await host.run("xl pause mover");
    const text = await inStubdom(
      guest,
      `stubdom qmp stop > /dev/null
      stubdom qmp xen-save-devices-state '{"filename":"/run/direct","live":false}' > /dev/null
      hexdump -v -e '32/1 "%02x" "\\n"' /run/direct; rm /run/direct`,
    );
    const direct = Buffer.from(text.replaceAll(/\s/g, ""), "hex");
    const made = await host.run(`${program} dom0 save mover /root/devices.state`, { timeout: 120 });
    expect(made.stdout).toMatch(/bytes of device state in/);
    const report = JSON.parse((await host.run(`${program} dom0 inspect --json /root/devices.state`)).stdout);
    expect(report).toMatchObject({ kind: "state disk", whole: true });
    await host.run(`${program} dom0 extract /root/devices.state /root/devices.raw`);
    await host.run("xl unpause mover");
    const ours = Buffer.from((await host.run("base64 -w 0 /root/devices.raw")).stdout, "base64");
    expect(ours.subarray(0, 4).toString()).toBe("QEVM");
    expect(ours.length).toBe(direct.length);
    const time = timeOfDay(direct);
    const apart = [...direct.keys()].filter((at) => direct[at] !== ours[at]);
    console.log(`${direct.length} bytes; apart: ${apart.slice(0, 40)}; the time of day: ${time}`);
    expect(apart.filter((at) => !time.includes(at))).toEqual([]);
    await expectWorking(guest);
  });

  it(`${cycles} times saved and restored: nothing is lost`, async () => {
    const [began, clock] = [Date.now(), await expectWorking(guest)];
    const times: number[] = [];
    for (let i = 1; i <= cycles; i++) {
      const from = Date.now();
      await save();
      const saved = Date.now();
      await restore();
      times.push((Date.now() - from) / 1000);
      console.log(`cycle ${i}: save ${saved - from} ms, restore ${Date.now() - saved} ms`);
      const now = await expectWorking(guest);
      // It stood still in the file: whoever was not saved has seen more time pass.
      expect(now - clock).toBeGreaterThan(0);
      expect(now - clock).toBeLessThan((Date.now() - began) / 1000);
      expect(await guest.qemuDmLog()).toMatch(
        /restore: \d+ bytes of device state from the state disk, whole/,
      );
      await expectNoLeaks(host);
    }
    console.log(`${cycles} cycles: save and restore, seconds: ${spread(times)}`);
  }, 7_200_000);
});

// The stub domain is a new one: in one life, console 1 serves one attempt.
describe("without the helper", () => {
  it(`over the consoles, and back${full ? "; a state of before, changed by one bit, is refused, and the guest not started" : ""}`, async () => {
    await stopHelper(host);
    onTestFinished(() => startHelper(host));
    await save("/root/console");
    if (full) {
      // What was saved over the state disk. QEMU's part lies near the end of libxl's stream, as it is: one bit in its middle.
      const harm =
        'd = bytearray(open("/root/state", "rb").read()); n = d.rindex(b"QEVM") + 100000; d[n] = d[n] ^ 1';
      await host.run(["python3", "-c", `${harm}; open("/root/harmed", "wb").write(d)`]);
      await startHelper(host);
      await expect(restore("/root/harmed")).rejects.toThrow(/exit status/);
      expect(await guest.qemuDmLog()).toMatch(/state refused, byte 65536: the checksum up to byte 131072 is/);
      expect(await guest.qemuDmLog()).not.toMatch(/QEMU started/);
      await stopHelper(host);
    }
    await restore("/root/console");
    await expectWorking(guest);
    const log = await guest.qemuDmLog();
    expect(log).toMatch(/restore: \d+ bytes of device state over console 2, whole/);
  });
});

/** Each ends the guest; what is restored from an older state has lost its TCP connection. */
describe("the end while saving", () => {
  it("xl destroy: nothing is left", async () => {
    const { failed } = await failingSave("/root/never");
    await host.run("xl destroy mover");
    await failed;
    await host.run("sleep 3");
    expect((await host.run("ls /var/lib/xen")).stdout).not.toContain("qemu-save");
  });

  it.runIf(full)("QEMU killed: xl fails, nothing is placed", async () => {
    await restore();
    const id = await guest.domid();
    const kill = inStubdom(guest, "until [ -b /dev/xvdzz ]; do :; done; kill -9 $(pidof qemu-system-i386)");
    const saving = save("/root/never");
    await expect(saving).rejects.toThrow(/exit status/);
    await kill.catch(() => {});
    expect(
      (await host.run(`cat /var/lib/xen/qemu-save.${id} | wc -c`, { accept: "any" })).stdout.trim(),
    ).toBe("0");
    await guest.destroy();
  });
});

it("the helper's log holds no error", async () => {
  expect(await helperLog(host)).not.toMatch(/ error /);
});
