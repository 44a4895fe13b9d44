/** What the debug shell shows of a stub domain, and what becomes of one whose QEMU dies. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { bootGuest, createGuest, type Guest, xenstoreRead } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { full, inStubdom, mostResident, withShell } from "./support.ts";

let host: LabHost;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
});

afterAll(async () => {
  await host?.stop();
});

describe("a stub domain with its debug shell", () => {
  let guest: Guest;

  beforeAll(async () => {
    const options = {
      name: "main",
      // A guest that finds nothing to boot would reset itself after a minute, and have a new stub domain.
      images: { hda: await guestDisk({ cmdline: "quiet" }) },
      extra: { hdtype: "ahci" },
      stubdom: { memory: 64, ...withShell },
    };
    guest = await bootGuest(host, options, "guest: ready", 240);
  });

  afterAll(async () => {
    await guest?.destroy();
  });

  it("has a command line in its debug shell", async () => {
    const json = await inStubdom(guest, "stubdom devices --json; stubdom log --json | tail -n 1");
    const [devices = "", last = ""] = json.split(/\r?\n/);
    expect(JSON.parse(devices)).toContainEqual(expect.objectContaining({ kind: "vbd", name: "disk hda" }));
    expect(JSON.parse(last)).toBeTruthy();
    const text = await inStubdom(
      guest,
      [
        "stubdom status --json; stubdom devices; stubdom argv --json; stubdom qmp query-status --json",
        "stubdom xenstore read target; stubdom xenstore ls device/vbd; stubdom log | tail -n 1",
        "stubdom qmp no-such-command; echo status $?",
      ].join("\n"),
    );
    const lines = text.split(/\r?\n/);
    expect(JSON.parse(lines[0] ?? "")).toMatchObject({ phase: "running", target: await guest.domid() });
    expect(text).toMatch(/vbd +disk hda +\/dev\/xvda, connected/);
    expect(text).toContain('{"libxl":["');
    expect(text).toContain('"status":"running"');
    expect(text).toContain(`device/vbd/768/device-type = "disk"`);
    expect(text).toMatch(/CommandNotFound|has not been found/);
    expect(text).toContain("status 1");
  });

  it("has a QEMU that is root without root's capabilities, and so cannot reach into process 1", async () => {
    const agent = `/local/domain/${await guest.stubdomId()}/device-model/${await guest.domid()}/agent`;
    const pid = await xenstoreRead(host, `${agent}/qemu/pid`);
    const said = await inStubdom(
      guest,
      `grep -E '^(CapEff|CapPrm|Seccomp):' /proc/${pid}/status; cat /proc/sys/kernel/usermodehelper/*`,
    );
    // CAP_SYS_RAWIO and CAP_SYS_ADMIN, for devices of the host; and none for what Linux executes by itself.
    expect(said.replaceAll(/\s+/g, " ").trim()).toBe(
      "CapPrm: 0000000000220000 CapEff: 0000000000220000 Seccomp: 2 0 0 0 0",
    );
  });

  it("leaves nothing of a session behind that has ended", async () => {
    const watchers = async (before: string) => {
      const said = await inStubdom(guest, `${before}; ps | grep -c '[w]atch target'`);
      return said.trim().split(/\r?\n/).at(-1);
    };
    // Its first event has been told, so that it is there.
    const start =
      "stubdom xenstore watch target > /run/watched & until [ -s /run/watched ]; do sleep 1; done";
    expect(await watchers(start)).toBe("1");
    expect(await watchers("rm /run/watched; sleep 1")).toBe("0");
  });

  it("keeps PID 1 within 4 MB resident, and asleep while nothing happens", async () => {
    const status = "cat /proc/1/status";
    const text = await inStubdom(
      guest,
      `a=$(${status}); sleep 60; b=$(${status}); echo "$a"; echo "$b"`,
      200,
    );
    const values = (name: string) =>
      [...text.matchAll(new RegExp(`^${name}:\\s+(\\d+)`, "gm"))].map(([, n]) => Number(n));
    const [resident = Number.NaN] = values("VmRSS");
    console.log(`PID 1: ${resident} KiB resident`);
    expect(resident).toBeLessThanOrEqual(mostResident.idle);
    const [before, after] = values("voluntary_ctxt_switches");
    expect(before).toBeGreaterThan(0);
    expect(after).toBe(before);
  });

  it("tells of QEMU's death within a second, and ends with reason crash", async () => {
    const stubdom = await guest.stubdomId();
    const agent = `/local/domain/${stubdom}/device-model/${await guest.domid()}/agent`;
    const pid = await xenstoreRead(host, `${agent}/qemu/pid`);
    // As a QEMU that was broken into could: it is root, and the device's name its own to give.
    const hide = "mv /dev/xen/privcmd /dev/xen/hidden";
    // The stub domain ends under the session, which hears nothing of it.
    const kill = `${hide}; read -r up _ < /proc/uptime; echo "killed at $up" > /dev/hvc0; kill -KILL ${pid}; sleep 5`;
    await inStubdom(guest, kill, 8).catch(() => "");
    expect(await xenstoreRead(host, `${agent}/error`)).toMatch(/QEMU was killed by SIGKILL/);
    const log = await guest.qemuDmLog();
    const told = [...log.matchAll(/^\[ *([\d.]+)\] error .*QEMU was killed by SIGKILL/gm)];
    expect(told, log).toHaveLength(1);
    const delay = Number(told[0]?.[1]) - Number(/killed at ([\d.]+)/.exec(log)?.[1]);
    console.log(`QEMU's death told after ${delay.toFixed(3)} s`);
    expect(delay).toBeLessThan(1);
    await expect
      .poll(async () => (await host.run(`xl list | awk '$1 == "main-dm" { print $5 }'`)).stdout.trim(), {
        timeout: 30_000,
      })
      .toMatch(/^---sc/);
  });
});

it.runIf(full)(
  "a stub domain that was told to takes its guest along, and on_crash= acts; one that is shut down does not",
  async () => {
    const guest = await createGuest(host, {
      name: "along",
      images: { hda: 1 },
      stubdom: { cmdline: `${withShell.cmdline} stubdom.crash_guest=1` },
      extra: { on_crash: "restart" },
    });
    const [before, { "qemu/pid": pid }] = [await guest.domid(), await guest.agent()];
    await inStubdom(guest, `kill -KILL ${pid}; sleep 5`, 8).catch(() => "");
    try {
      // Its second life, whole: xl waits for the end of it. One that is being made is given up when its stub domain goes.
      const waitedFor = async () => {
        const { stdout } = await host.run("cat /var/log/xen/xl-along.log");
        return Number([...stdout.matchAll(/Waiting for domain along \(domid (\d+)\)/g)].at(-1)?.[1]);
      };
      await expect.poll(waitedFor, { timeout: 300_000, interval: 1000 }).toBeGreaterThan(before);
      const { stdout } = await host.run("cat /var/log/xen/xl-along.log");
      expect(stdout).toMatch(/reason code 3 [\s\S]*is restart/);

      // control/shutdown: Linux says that it has heard, and process 1 does the rest.
      const second = [await guest.domid(), await guest.stubdomId()];
      await host.run(["xl", "shutdown", "along-dm"]);
      // Reason poweroff: with another one there is a letter behind the s.
      const state = () => host.run(`xl list | awk '$1 == "along-dm" { print $5 }'`);
      await expect
        .poll(async () => (await state()).stdout.trim(), { timeout: 60_000, interval: 1000 })
        .toBe("---s--");
      expect(await xenstoreRead(host, `/local/domain/${second[1]}/control/shutdown`)).toBe("");
      expect(await guest.agent()).toMatchObject({ phase: "ended", "qemu/exit": "SIGKILL" });
      const log = await guest.qemuDmLog();
      expect(log).toMatch(/SIGUSR2: shutting down/);
      expect(log).not.toMatch(/ error /);
      expect([await guest.domid(), await guest.stubdomId()]).toEqual(second);
    } finally {
      await guest.destroy();
    }
  },
);

const hung = {
  // Neither way in needs xenstored once it is there; what is asked for while it stands still is answered afterwards.
  "xenstored hangs": { find: "pgrep -x 'xenstored|oxenstored'", first: ":", reason: 3, told: true },
  // Which dom0's QEMU does. The ring has room for 2048 bytes: what process 1 says of its own QEMU's death does not fit any more,
  // and Linux waits.
  "nobody reads its console": {
    find: "pgrep -f '[q]emu-system.* -name stuck-dm '",
    first: "printf %2000s . > /dev/hvc0",
    reason: 4,
    told: false,
  },
};

it.runIf(full).each(Object.entries(hung))(
  "a stub domain ends though %s",
  async (_, { find, first, reason, told }) => {
    const guest = await createGuest(host, {
      name: "stuck",
      images: { hda: 1 },
      stubdom: { memory: 64, ...withShell },
      createArgs: ["-p"],
    });
    onTestFinished(() => guest.destroy());
    const [pid, id] = [await guest.agent().then((agent) => agent["qemu/pid"]), await guest.stubdomId()];
    const script = "/root/hang.py";
    await host.push(readFileSync(join(import.meta.dirname, "dom0/hang.py")), script);
    const hanging = (await host.run(find)).stdout.trim();
    const word = "the shell is there";
    const log = "/var/log/xen/qemu-dm-stuck.log";
    const kill = `echo "${word}" > /dev/hvc0; sleep 10; ${first}; kill -KILL ${pid}; sleep 30`;
    const [{ stdout }] = await Promise.all([
      host.run(["python3", script, hanging, String(id), log, word, "90"], { timeout: 120 }),
      inStubdom(guest, kill, 20).catch(() => ""),
    ]);
    // When the program was stopped, and before it went on: 3 is a crash, 4 Xen's watchdog.
    expect(stdout).toBe(`running\nshut down ${reason}\n`);
    if (told) expect(await guest.qemuDmLog()).toMatch(/error .*QEMU was killed by SIGKILL/);
  },
);
