/** Serial ports as pipes: bytes of both directions at once, compared by their hashes. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { Guest } from "../../../scripts/lab/guest.ts";
import { xenstoreRead } from "../../../scripts/lab/guest.ts";
import { askGuest, randomFile, rounds } from "../support.ts";

const script = "/root/port.py";

/** dom0's terminal for a guest's serial port: the stub domain's first three consoles are libxl's own. */
async function terminal(guest: Guest, port: number): Promise<string> {
  const path = `/local/domain/${await guest.stubdomId()}/device/console/${3 + port}/tty`;
  const tty = await xenstoreRead(guest.host, path);
  if (tty === undefined) throw new Error(`${guest.name}: no terminal at ${path}`);
  return tty;
}

/** @param out and @param into numbers of serial ports, from 0 */
export function consoleTests(guestOf: () => Guest, out: number, into: number): void {
  it(
    "its serial ports lose no byte, out and in at once, while its disks are read",
    async () => {
      const guest = guestOf();
      const { host } = guest;
      const kib = { out: rounds(128, 10 << 10), into: rounds(64, 1 << 10) };
      await host.push(readFileSync(join(import.meta.dirname, "../dom0/port.py")), script);
      const sum = await randomFile(host, "/root/port.bytes", kib.into << 10);
      const reader = host.spawn([
        "python3",
        script,
        "read",
        await terminal(guest, out),
        String(kib.out << 10),
      ]);
      let read = "";
      const ready = new Promise<void>((resolve) => {
        reader.on("stdout", (chunk) => {
          read += new TextDecoder().decode(chunk);
          if (read.includes("ready")) resolve();
        });
      });
      await ready;
      const hours = 3 * 3600;
      guest.type("while :; do cat /dev/sda > /dev/null; echo 3 > /proc/sys/vm/drop_caches; done &\n");
      const began = Date.now();
      await askGuest(guest, `takefrom ttyS${into} ${kib.into} &`, /guest: (taking)/);
      const taken = guest.waitForSerial(/guest: took/, hours);
      const writer = host.run(["python3", script, "write", await terminal(guest, into), "/root/port.bytes"], {
        timeout: hours,
      });
      const sent = await askGuest(
        guest,
        `sendto ttyS${out} ${kib.out}`,
        /guest: serial \S+ \d+ (\S+)/,
        hours,
      );
      console.log(`${kib.out} KiB out in ${((Date.now() - began) / 1000).toFixed(0)} s`);
      expect(await reader.exited).toBe(0);
      expect(read).toBe(`ready\n${kib.out << 10} ${sent}\n`);
      await writer;
      expect(await taken).toContain(`guest: took ttyS${into} ${kib.into} ${sum}`);
      console.log(`${kib.into} KiB in after ${((Date.now() - began) / 1000).toFixed(0)} s`);
      guest.type("kill %1\n");
    },
    3.5 * 3600_000,
  );
}
