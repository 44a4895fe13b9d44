/** Plain `xl create`, again and again, and what the agent itself costs at boot, beside a shell script's share. */

import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { shellQemuStart } from "../../scripts/bench/readings.ts";
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

/**
 * Milliseconds from the start of process 1 to QEMU's, waiting for backends not counted: the agent's, and a shell script's for the
 * same steps, one after the other on one host.
 */
async function bootShare(host: LabHost, times: number): Promise<{ ours: number[]; script: number[] }> {
  const nics = [{ mac: "00:16:3e:00:00:02", bridge: "xenbr0" }];
  const ramdisk = "/root/shell-stubdom-ramdisk";
  await host.push(await shellStubdomRamdisk(), ramdisk);
  const ours: number[] = [];
  const script: number[] = [];
  for (let n = 0; n < times; n++) {
    const guest = await createGuest(host, { name: `ours${n}`, images: { hda: 4 }, nics });
    const agent = await guest.agent();
    ours.push(phase(agent, "qemu-answers") - phase(agent, "init") - Number(agent.waited));
    await guest.destroy();

    const shell = await createGuest(host, {
      name: `shell${n}`,
      images: { hda: 4 },
      nics,
      stubdom: { ramdisk, memory: 128, cmdline: `quiet ${SHELL_STUBDOM_CMDLINE}` },
    });
    const log = await shell.qemuDmLog();
    const start = shellQemuStart(log);
    expect(start, log).toBeDefined();
    script.push(start?.own ?? Number.NaN);
    await shell.destroy();
  }
  return { ours, script };
}

/** The medians' ratio, told. */
function ratioOf({ ours, script }: { ours: number[]; script: number[] }, unit: string): number {
  console.log(`agent: ${spread(ours)} ${unit}; shell script: ${spread(script)} ${unit}`);
  const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] ?? Number.NaN;
  const ratio = median(ours) / median(script);
  console.log(`the agent takes ${ratio.toFixed(2)} of the shell script's`);
  return ratio;
}

describe("PID 1's own share of the boot", () => {
  // Here a nanosecond is an instruction, of whichever domain.
  it("is at most a fifth of what a shell script takes for the same steps, counted in instructions of the whole host", async () => {
    const counting = await LabHost.start({ deterministic: true, vcpus: 1, saved: true });
    try {
      const shares = await bootShare(counting, rounds(1, 3));
      expect(ratioOf(shares, "million instructions")).toBeLessThanOrEqual(0.2);
    } finally {
      await counting.stop();
    }
  });

  // By the clock it depends on the machine, and on what its neighbours do: 0.22 to 0.32 in three rounds where nothing else ran.
  // So a fifth is not reached; this bound only tells of something that has gone badly wrong.
  const most = 0.66;
  it.runIf(full)(`is at most ${most} of it by the clock`, async () => {
    expect(ratioOf(await bootShare(host, 3), "ms")).toBeLessThanOrEqual(most);
  });
});
