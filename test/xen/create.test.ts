/** Plain `xl create`, again and again, and what the agent itself costs at boot, beside a shell script's share. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { shellQemuStart } from "../../scripts/bench/readings.ts";
import { quantile } from "../../scripts/bench/statistics.ts";
import { createGuest } from "../../scripts/lab/guest.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { SHELL_STUBDOM_CMDLINE, shellStubdomRamdisk } from "../../scripts/lab/shell-stubdom.ts";
import { full, phase, rounds, spread } from "./support.ts";

let host: LabHost;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
});

afterAll(async () => {
  await host?.stop();
});

describe("plain xl create", () => {
  const times = rounds(2, 20);
  it(`succeeds ${times} times of ${times}, far from libxl's 30 s`, async () => {
    const running: number[] = [];
    const returned: number[] = [];
    for (let n = 0; n < times; n++) {
      const guest = await createGuest(host, { name: `again${n}`, images: { hda: 4 } });
      running.push(phase(await guest.agent(), "running") / 1000);
      returned.push(guest.createTime / 1000);
      await guest.destroy();
    }
    console.log(
      `${times} of ${times}; stub domain's kernel to running: ${spread(running)} s; xl create: ${spread(returned)} s`,
    );
    // libxl's clock runs from the unpause, a little before the kernel's own.
    expect(Math.max(...running)).toBeLessThan(20);
  });
});

const nics = [{ mac: "00:16:3e:00:00:02", bridge: "xenbr0" }];

/** Milliseconds from the start of process 1 to QEMU's, waiting for backends not counted. */
async function agentShare(host: LabHost): Promise<number> {
  const guest = await createGuest(host, { name: "ours", images: { hda: 4 }, nics });
  const agent = await guest.agent();
  await guest.destroy();
  return phase(agent, "qemu-answers") - phase(agent, "init") - Number(agent.waited);
}

/** A shell script's for the same steps. */
async function scriptShare(host: LabHost): Promise<number> {
  const ramdisk = "/root/shell-stubdom-ramdisk";
  await host.push(await shellStubdomRamdisk(), ramdisk);
  const shell = await createGuest(host, {
    name: "shell",
    images: { hda: 4 },
    nics,
    stubdom: { ramdisk, memory: 128, cmdline: `quiet ${SHELL_STUBDOM_CMDLINE}` },
  });
  const log = await shell.qemuDmLog();
  await shell.destroy();
  const start = shellQemuStart(log);
  expect(start, log).toBeDefined();
  return start?.own ?? Number.NaN;
}

/** Of the agent's and the script's, told. */
function ratioOf(ours: readonly number[], script: readonly number[], unit: string, at: number): number {
  console.log(`agent: ${spread(ours)} ${unit}; shell script: ${spread(script)} ${unit}`);
  const ratio = quantile(ours, at) / quantile(script, at);
  console.log(`the agent takes ${ratio.toFixed(2)} of the shell script's`);
  return ratio;
}

describe("PID 1's own share of the boot", () => {
  // Here a nanosecond is an instruction, of whichever domain, or nobody's: time in which all wait passes as well. On one
  // processor credit2 lets dom0 work for the backends up to 10 ms at a stretch, whether the stub domain waits for them or could
  // run, so that half of the boots counted a stretch as process 1's own (seen in Xen's trace and in its runstates). With the least
  // weight dom0 has 1 ms, Xen's rate limit, where somebody else could run; when nobody could, it has all that it wants.
  it("is at most a fifth of what a shell script takes for the same steps, counted in instructions of the whole host", async () => {
    const counting = await LabHost.start({ deterministic: true, vcpus: 1, saved: true });
    try {
      await counting.run("xl sched-credit2 -d Domain-0 -w 1");
      const [ours, script]: [number[], number[]] = [[], []];
      ours.push(await agentShare(counting));
      script.push(await scriptShare(counting));
      ours.push(await agentShare(counting));
      expect(ratioOf(ours, script, "million instructions", 1)).toBeLessThanOrEqual(0.2);
    } finally {
      await counting.stop();
    }
  });

  // By the clock it depends on the machine, and on what its neighbours do: 0.22 to 0.32 in three rounds where nothing else ran.
  // So a fifth is not reached; this bound only tells of something that has gone badly wrong.
  const most = 0.66;
  it.runIf(full)(`is at most ${most} of it by the clock`, async () => {
    const [ours, script]: [number[], number[]] = [[], []];
    for (let n = 0; n < 3; n++) {
      ours.push(await agentShare(host));
      script.push(await scriptShare(host));
    }
    expect(ratioOf(ours, script, "ms", 0.5)).toBeLessThanOrEqual(most);
  });
});
