/**
 * Unproven: not run on a host yet. Rename to flush.test.ts once it passes.
 *
 * What the guest has written and flushed is in dom0's file when the stub domain dies the next instant, although
 * the stub domain has a page cache in between.
 */

import { createHash } from "node:crypto";
import { afterAll, beforeAll, expect, it } from "vitest";
import { createGuest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { rounds } from "./support.ts";

const times = rounds(1, 20);
const flushed = 1 << 20;

let host: LabHost;

beforeAll(async () => {
  host = await LabHost.start({ dom0: "trixie" });
});

afterAll(async () => {
  await host?.stop();
});

/** As `yes TEXT | head -c` of the test guest's job makes it. */
function hashOf(text: string): string {
  const line = `${text}\n`;
  const bytes = line.repeat(Math.ceil(flushed / line.length)).slice(0, flushed);
  return createHash("sha256").update(bytes).digest("hex");
}

it(
  `survives the stub domain's end, ${times} times of ${times}`,
  async () => {
    for (let round = 0; round < times; round++) {
      const text = `round${round}`;
      const guest = await createGuest(host, {
        name: `flush${round}`,
        images: { hda: await guestDisk({ jobs: [`flush:sdb:${text}`], cmdline: "quiet" }), hdb: 4 },
        extra: { hdtype: "ahci" },
      });
      await guest.waitForSerial(`guest: flushed sdb ${hashOf(text)}`, 400);
      // libxl destroys the stub domain first.
      await guest.destroy();
      const { stdout } = await host.run(`head -c ${flushed} /root/flush${round}/hdb.img | sha256sum`);
      expect(stdout.split(" ")[0], `round ${round}`).toBe(hashOf(text));
      await host.run(["rm", "-rf", `/root/flush${round}`]);
    }
  },
  60 * 60_000,
);
