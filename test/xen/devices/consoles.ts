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

/** Has dom0 read so many bytes of a port, or follow what comes slowly; gives how to wait for their hash. */
async function receive(
  guest: Guest,
  port: SerialPort,
  bytes: number,
  how: "read" | "follow",
): Promise<() => Promise<string>> {
  const { host } = guest;
  await host.push(readFileSync(join(import.meta.dirname, "../dom0/port.py")), script);
  const tty = await terminal(guest, port.number);
  const reader = host.spawn(["python3", script, how, tty, String(bytes)]);
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

/**
 * Sends so much to the port from dom0 and has the guest take it; both hashes. What sends stays until all has been
 * taken, for dom0's QEMU looks once a second whether there is somebody.
 */
async function sendInto(guest: Guest, port: SerialPort, kib: number, seconds: number): Promise<string[]> {
  const { host } = guest;
  const sent = await randomFile(host, "/root/port.bytes", kib << 10);
  await askGuest(guest, `porttake ${port.base} ${kib}`, /guest: (taking)/);
  const took = guest.waitForSerial(/guest: took/, seconds, guest.serialLines.length);
  const tty = await terminal(guest, port.number);
  const writer = host.spawn(["python3", script, "write", tty, "/root/port.bytes"]);
  const early = writer.exited.then((status) => {
    throw new Error(`${script} write ended early: ${status}`);
  });
  early.catch(() => {}); // it ends when it is told to
  const taken = / (\S+)$/.exec((await Promise.race([took, early])).trim())?.[1] ?? "";
  writer.end();
  await writer.exited;
  return [taken, sent];
}

/** The guest must have done `keepprobe`. */
export function consoleTests(guestOf: () => Guest, out: SerialPort, into: SerialPort): void {
  // What an emulated host has time for beside others. LINUX_STUBDOM_UART_KIB=10240,1024 is what is promised.
  const [outKib = 64, intoKib = 16] = (process.env.LINUX_STUBDOM_UART_KIB ?? "64,16").split(",").map(Number);
  // Without a number the loops below would have nothing to do, and pass.
  if (!(outKib > 0 && intoKib > 0)) throw new RangeError("LINUX_STUBDOM_UART_KIB is OUT,IN: KiB from 1");
  const piece = 256;
  const hours = 6 * 3600;

  // Behind a serial port stands a console. Each byte of a port is a trap, so that here these ten go without one.
  it("the console behind a serial port loses no byte of 10 MB to dom0", async () => {
    const guest = guestOf();
    const [size, times] = [1 << 20, 10];
    const received = await receive(guest, out, size * times, "read");
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
    `its serial ports lose no byte of ${outKib} KiB out and ${intoKib} KiB in, while its disk is read`,
    async () => {
      const guest = guestOf();
      // Each byte is an event for dom0, which would take the processor from QEMU each time. HVM guests have the second one
      // of an emulated host; with QEMU on it, too, a guest and its QEMU take turns without waking a processor.
      await guest.host.run(`xl vcpu-pin Domain-0 0 0; xl vcpu-pin ${guest.name}-dm 0 1`);
      guest.type(
        "while :; do cat /dev/sda > /dev/null; echo 3 > /proc/sys/vm/drop_caches; usleep 200000; done &\n",
      );
      const began = Date.now();
      const tell = (way: string, done: number) =>
        console.log(`${done} KiB ${way} after ${((Date.now() - began) / 1000).toFixed(0)} s`);
      for (let done = 0; done < outKib; ) {
        const kib = Math.min(piece, outKib - done);
        const received = await receive(guest, out, kib << 10, "follow");
        const command = `portsend ${out.base} ${kib}`;
        const sent = await askGuest(guest, command, /guest: sent \S+ \d+ (\S+)/, hours);
        expect(await received()).toBe(sent);
        done += kib;
        tell("out", done);
      }
      // One after the other: both ask their port again and again, each time a trap, and the shell would starve.
      for (let done = 0; done < intoKib; ) {
        const kib = Math.min(piece, intoKib - done);
        const [taken, sent] = await sendInto(guest, into, kib, hours);
        expect(taken).toBe(sent);
        done += kib;
        tell("in", done);
      }
      guest.type("kill %1\n");
      await guest.host.run(`xl vcpu-pin Domain-0 0 all; xl vcpu-pin ${guest.name}-dm 0 all`);
    },
    (hours + 600) * 1000,
  );
}
