/**
 * `npm run bench -- --host local` as on a machine's own Xen: it runs in dom0 itself, which sees this machine's files over 9p,
 * and takes back all that it brought.
 */

import { dirname, join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { cacheDir } from "../../bundler/cache.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { buildRoot } from "../../bundler/root.ts";
import { measuringDisk } from "../../scripts/bench/measuring.ts";
import { isAbsent, parseResults } from "../../scripts/bench/results.ts";
import { guestJobs, settingsOf } from "../../scripts/bench/settings.ts";
import { LabHost } from "../../scripts/lab/host.ts";

/** All but those that take longest, `idle` and `density`: they ask dom0 for nothing that these do not. */
const groups = ["resources", "start", "access", "disk", "network", "screen", "save"];
const MACHINE = "/machine";

let host: LabHost;

beforeAll(async () => {
  // What is compiled is compiled here: all is the same there, and in the cache.
  await buildRoot();
  await measuringDisk(guestJobs(settingsOf({ quick: true, minios: false, icount: false, only: groups })));
  host = await LabHost.start({
    memory: 8192,
    dom0Memory: 3072,
    qemuArgs: ["-virtfs", "local,path=/,mount_tag=machine,security_model=passthrough,multidevs=remap"],
  });
  await host.run(
    `mkdir ${MACHINE} && modprobe 9pnet_virtio && mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000 machine ${MACHINE}`,
  );
});

afterAll(async () => {
  await host?.stop();
});

it("measures on the Xen that it runs on, and leaves dom0 as it was", async () => {
  // A bridge that has had ports has another state and address of its own.
  const state = `ls /root /usr/local/sbin /var/lib/xen; xl list | awk '{ print $1 }'; ip -br -4 addr | awk '{ print $1, $3 }'`;
  // A helper that is installed and does not run, and is not to be replaced.
  const theirs = "/usr/local/sbin/stubdom";
  await host.run(`echo '#!/bin/false' > ${theirs}`);
  const before = (await host.run(state)).stdout;
  const only = ["--only", groups.join(","), "--variants", "dom0,linux-stubdom", "--output", "/tmp/bench"];
  await host.run(
    [
      ...[join(MACHINE, process.execPath), "--import", "tsx", "scripts/bench/bench.ts"],
      "--host",
      "local",
      "--quick",
      ...only,
    ],
    {
      cwd: join(MACHINE, PROJECT),
      env: {
        PATH: `${MACHINE}${dirname(process.execPath)}:/usr/sbin:/usr/bin:/sbin:/bin`,
        XDG_CACHE_HOME: join(MACHINE, dirname(cacheDir())),
      },
      timeout: 45 * 60,
      onLine: (line) => console.log(line),
    },
  );
  const results = parseResults((await host.pull("/tmp/bench/results.json")).toString(), "results.json");
  expect(results.host).toMatchObject({
    kind: "local",
    icount: false,
    xen: expect.stringMatching(/^Xen 4\./),
  });
  expect(results.troubles).toEqual([]);
  for (const group of groups) {
    const figures = Object.entries(results.figures).filter(([id]) => id.startsWith(`${group}.`));
    expect(figures.length, group).toBeGreaterThan(1);
    for (const [id, { "linux-stubdom": ours }] of figures) {
      expect(ours !== undefined && !isAbsent(ours), id).toBe(true);
    }
  }
  expect((await host.run(state)).stdout).toBe(before);
  expect((await host.run(["cat", theirs])).stdout).toBe("#!/bin/false\n");
});
