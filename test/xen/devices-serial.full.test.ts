/** A guest with four serial ports, and little else: bytes through the console behind one, and through the emulated UARTs. */

import { afterAll, beforeAll, describe } from "vitest";
import { guestProbe } from "../../scripts/bench/probe.ts";
import { bootGuest, type Guest } from "../../scripts/lab/guest.ts";
import { guestDisk } from "../../scripts/lab/guest-disk.ts";
import { LabHost } from "../../scripts/lab/host.ts";
import { consoleTests } from "./devices/consoles.ts";
import { tellOnFailure, withShell } from "./support.ts";

let host: LabHost;
let guest: Guest;

beforeAll(async () => {
  host = await LabHost.start({ saved: true });
  const files = { probe: await guestProbe() };
  const options = {
    name: "serial",
    memory: 96,
    images: { hda: await guestDisk({ jobs: ["keepprobe"], cmdline: "quiet", files }) },
    serials: ["pty", "pty", "pty", "pty"],
    stubdom: withShell,
    extra: { hdtype: "ahci" },
  };
  guest = await bootGuest(host, options, "guest: ready", 800);
}, 20 * 60_000);

afterAll(async () => {
  await host?.stop();
});

tellOnFailure(() => ({ host, guest }), "serial");

describe("four serial ports", () => {
  consoleTests(() => guest, { number: 2, base: "3e8" }, { number: 3, base: "2e8" });
});
