/** Serial ports as pipes: bytes of both directions, compared by their hashes. */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import type { Guest } from "../../../scripts/lab/guest.ts";
import { xenstoreRead } from "../../../scripts/lab/guest.ts";
import { askGuest, inStubdom, randomFile } from "../support.ts";

const script = "/root/port.py";

/** dom0's terminal for a guest's serial port: the stub domain's first three consoles are libxl's own. */
async function terminal(guest: Guest, port: number): Promise<string> {
  const path = `/local/domain/${await guest.stubdomId()}/device/console/${3 + port}/tty`;
  const tty = await xenstoreRead(guest.host, path);
  if (tty === undefined) throw new Error(`${guest.name}: no terminal at ${path}`);
  return tty;
}

/** A serial port by its number, and its first I/O port as the guest's commands take it. */
export interface SerialPort {
  readonly number: number;
  readonly base: string;
}

/** Has dom0 read so many bytes of a port; gives how to wait for their hash. */
async function receive(guest: Guest, port: SerialPort, bytes: number): Promise<() => Promise<string>> {
  const { host } = guest;
  await host.push(readFileSync(join(import.meta.dirname, "../dom0/port.py")), script);
  const tty = await terminal(guest, port.number);
  const reader = host.spawn(["python3", script, "read", tty, String(bytes)]);
  let read = "";
  await new Promise<void>((resolve) => {
    reader.on("stdout", (chunk) => {
      read += new TextDecoder().decode(chunk);
      if (read.includes("ready")) resolve();
    });
  });
  return async () => {
    expect(await reader.exited).toBe(0);
    const [, count, hash] = /^ready\n(\d+) (\S+)\n$/.exec(read) ?? [];
    expect(count, read).toBe(String(bytes));
    return hash ?? "";
  };
}

/** The guest must have done `keepprobe`. */
export function consoleTests(guestOf: () => Guest, out: SerialPort, into: SerialPort): void {
  const kib = { out: 64, into: 16 };
  const hours = 6 * 3600;

  // Behind a serial port stands a console. Each byte of a port is a trap, so that here these ten go without one.
  it("the console behind a serial port loses no byte of 10 MB to dom0", async () => {
    const guest = guestOf();
    const [size, times] = [1 << 20, 10];
    const received = await receive(guest, out, size * times);
    const began = Date.now();
    const all = Array.from({ length: times }, () => "/run/random").join(" ");
    const device = `/dev/hvc${3 + out.number}`;
    const sent = await inStubdom(
      guest,
      `dd if=/dev/urandom of=/run/random bs=1024 count=${size >> 10} 2> /dev/null
       cat ${all} | sha256sum; cat ${all} > ${device}; rm /run/random`,
      1800,
    );
    expect(await received()).toBe(sent.slice(0, 64));
    console.log(`10 MB from ${device} to dom0 in ${((Date.now() - began) / 1000).toFixed(0)} s`);
  });

  it(
    `its serial ports lose no byte of ${kib.out} KiB out and ${kib.into} KiB in, while its disk is read`,
    async () => {
      const guest = guestOf();
      const { host } = guest;
      const received = await receive(guest, out, kib.out << 10);
      const hash = await randomFile(host, "/root/port.bytes", kib.into << 10);
      guest.type(
        "while :; do cat /dev/sda > /dev/null; echo 3 > /proc/sys/vm/drop_caches; usleep 200000; done &\n",
      );
      const began = Date.now();
      const seconds = () => ((Date.now() - began) / 1000).toFixed(0);
      const sent = await askGuest(
        guest,
        `portsend ${out.base} ${kib.out}`,
        /guest: sent \S+ \d+ (\S+)/,
        hours,
      );
      console.log(`${kib.out} KiB out in ${seconds()} s`);
      expect(await received()).toBe(sent);
      // One after the other: both ask their port again and again, each time a trap, and the shell would starve.
      await askGuest(guest, `porttake ${into.base} ${kib.into}`, /guest: (taking)/);
      const taken = guest.waitForSerial(/guest: took/, hours, guest.serialLines.length);
      await host.run(["python3", script, "write", await terminal(guest, into.number), "/root/port.bytes"], {
        timeout: hours,
      });
      expect(await taken).toContain(`guest: took ${into.base} ${kib.into} ${hash}`);
      console.log(`${kib.into} KiB in after ${seconds()} s`);
      guest.type("kill %1\n");
    },
    (hours + 600) * 1000,
  );
}
