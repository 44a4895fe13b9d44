/**
 * Guests on an emulated host: created by plain `xl create`, watched on their serial console.
 *
 *     const guest = await createGuest(host, { name: "one", images: { hda: await guestDisk() } });
 *     await guest.waitForSerial(/^guest: up/, 120);
 *     console.log(await guest.qemuDmLog());
 *     await guest.destroy();
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { PROJECT } from "../../bundler/paths.ts";
import { progress } from "../../bundler/progress.ts";
import type { RemoteProcess } from "./channel.ts";
import { dealtWithFaults, keepFault } from "./emulator-faults.ts";
import { CreateFailure, EmulatorFault, LabError, RemoteFailure, Timeout } from "./errors.ts";
import { PATIENCE } from "./patience.ts";
import { lineSplitter, type XenHost } from "./xen-host.ts";
import { parseXenstoreLs } from "./xenstore-ls.ts";
import { type XlDisk, type XlGuest, type XlStubdom, xlConfig } from "./xl-config.ts";

/** Where the image that `npm run build` made stands in dom0. */
const STUBDOM: XlStubdom = {
  kernel: "/root/stubdom-lab/stubdom-linux-kernel",
  ramdisk: "/root/stubdom-lab/stubdom-linux-ramdisk",
  cmdline: "quiet",
  memory: 64,
};

export interface GuestOptions extends Partial<Omit<XlGuest, "stubdom">> {
  readonly name: string;
  /**
   * `true`, the default: our image with its settings; `false`: QEMU in dom0; otherwise what differs from our
   * settings. A kernel or ramdisk is a path in dom0.
   */
  readonly stubdom?: boolean | Partial<XlStubdom>;
  /** Disks by their name in the guest: an image on this machine, which is copied into dom0, or MiB of zeros. */
  readonly images?: Readonly<Record<string, string | number>>;
  /** Seconds for `xl create`, {@link PATIENCE} times; libxl itself gives up after a shorter time. */
  readonly timeout?: number;
  /** Gets the guest's serial console, line by line. */
  readonly onSerial?: (line: string) => void;
  /** Words for `xl create`: `-p` leaves the guest paused. */
  readonly createArgs?: readonly string[];
}

const installed = new WeakMap<XenHost, Promise<void>>();

/** Copies the stub domain's image into dom0, once a host. */
export function installStubdom(host: XenHost): Promise<void> {
  const before = installed.get(host);
  if (before !== undefined) return before;
  const copy = async (): Promise<void> => {
    await host.push(join(PROJECT, "dist/stubdom-linux-kernel"), STUBDOM.kernel);
    await host.push(join(PROJECT, "dist/stubdom-linux-ramdisk"), STUBDOM.ramdisk);
  };
  const copied = copy();
  installed.set(host, copied);
  return copied;
}

/** The image's place and settings in dom0, with what differs; `undefined` for a guest without stub domain. */
export function stubdomSettings(choice: GuestOptions["stubdom"] = true): XlStubdom | undefined {
  if (choice === false) return undefined;
  return { ...STUBDOM, ...(choice === true ? {} : choice) };
}

/** Copies the guest's images into dom0 and gives its configuration's text. */
export async function prepareGuest(host: XenHost, options: GuestOptions): Promise<string> {
  const { images = {}, disks = [], stubdom: choice, timeout, onSerial, createArgs, ...guest } = options;
  const stubdom = stubdomSettings(choice);
  if (stubdom !== undefined) await installStubdom(host);
  const own: XlDisk[] = [];
  for (const [vdev, image] of Object.entries(images)) {
    const target = `/root/${options.name}/${vdev}.img`;
    if (typeof image === "string") await host.push(image, target);
    else
      await host.run(`mkdir -p /root/${options.name} && rm -f ${target} && truncate -s ${image}M ${target}`);
    own.push({ vdev, target });
  }
  return xlConfig({
    ...guest,
    disks: [...own, ...disks],
    ...(stubdom === undefined ? {} : { stubdom }),
  });
}

/** Creates a guest; resolves when `xl create` has returned. Rejects with what `xl` and QEMU said. */
export async function createGuest(host: XenHost, options: GuestOptions): Promise<Guest> {
  const config = await prepareGuest(host, options);
  const path = `/root/${options.name}/guest.cfg`;
  await host.push(Buffer.from(config), path);
  const began = Date.now();
  try {
    await host.run(["xl", "create", ...(options.createArgs ?? []), path], {
      timeout: options.timeout ?? 180,
    });
  } catch (error) {
    if (!(error instanceof RemoteFailure)) throw error;
    const log = await dmLog(host, options.name);
    throw new CreateFailure(
      `${error.message}\n${emulatorSays(host)}/var/log/xen/qemu-dm-${options.name}.log:\n${log}`,
    );
  }
  // MiniOS has no settings of ours, but is a stub domain as well.
  const stubdom = options.stubdom !== false || options.extra?.device_model_stubdomain_override === true;
  return new Guest(host, options.name, Date.now() - began, stubdom, options.onSerial);
}

/**
 * What libxl says of programs of its own in dom0 that have not come up in time, a QEMU for the stub domain, a proxy, the hotplug
 * scripts of its disks and NICs; before they have, it does not let the stub domain run (tools/libs/light/libxl_dm.c). What it
 * says of one that has run and does not say `running` in its 30 s is "Stubdom 2 for 1 startup: startup timed out".
 */
const dom0TooSlow = /device model.*: startup timed out|stubdom_pvqemu_cb: .*error connecting/;

/** Creates a guest, and once more if libxl gave up before its stub domain had run: the wait was dom0's, on a slow machine. */
async function createPatiently(host: XenHost, options: GuestOptions): Promise<Guest> {
  try {
    return await createGuest(host, options);
  } catch (error) {
    if (!(error instanceof CreateFailure && dom0TooSlow.test(error.message))) throw error;
    progress.note(`${error.message}\nThe stub domain of ${options.name} had not run yet: once more.`);
    return createGuest(host, options);
  }
}

/**
 * Creates a guest and waits for a line of its serial console. One that the emulated processor killed meanwhile, which
 * Xen tells by a triple fault, is started anew, once: the file that is left by {@link keepFault} tells of it.
 */
export async function bootGuest(
  host: XenHost,
  options: GuestOptions,
  wanted: string | RegExp,
  seconds: number,
  onCreated: () => void = () => {},
): Promise<Guest> {
  const { name } = options;
  for (let again = false; ; again = true) {
    const guest = await createPatiently(host, options);
    onCreated();
    try {
      await guest.waitForSerial(wanted, seconds);
      return guest;
    } catch (error) {
      if (!(error instanceof EmulatorFault) || again) throw error;
      const text = `${error.message}\n\n${readFileSync(host.log, "latin1")}\n\n${guest.serial}\n`;
      keepFault(`${name}-${Date.now()}`, text);
      dealtWithFaults();
      progress.note(
        `${error.message}\nThe emulated processor killed guest ${name}: it is started anew, once.`,
      );
      guest.leave();
      // What faulted reboots, and may be between two lives.
      await host.run(`until ! xl domid ${name} 2> /dev/null; do xl destroy ${name}; sleep 1; done`);
    }
  }
}

function emulatorSays(host: XenHost): string {
  const faults = host.guestFaults;
  return faults.length === 0 ? "" : `the emulator killed a guest: ${faults.join("; ")}\n`;
}

async function dmLog(host: XenHost, name: string): Promise<string> {
  return (await host.run(["cat", `/var/log/xen/qemu-dm-${name}.log`], { accept: "any" })).stdout;
}

/** Path -> value of all below a path of dom0's xenstore; empty if there is none. */
export async function xenstoreLs(host: XenHost, path: string): Promise<Record<string, string>> {
  return parseXenstoreLs((await host.run(["xenstore-ls", "-f", path], { accept: "any" })).stdout);
}

/** One value, `undefined` if there is none. */
export async function xenstoreRead(host: XenHost, path: string): Promise<string | undefined> {
  const { status, stdout } = await host.run(["xenstore-read", path], { accept: "any" });
  return status === 0 ? stdout.replace(/\n$/, "") : undefined;
}

interface Waiter {
  readonly matches: (line: string) => boolean;
  resolve(line: string): void;
}

/** A guest that exists in dom0, and what its first serial port said since it was created. */
export class Guest {
  readonly #follower: RemoteProcess;
  readonly #lines: string[] = [];
  readonly #waiters = new Set<Waiter>();
  readonly #faultsBefore: number;
  #partial = "";

  constructor(
    readonly host: XenHost,
    readonly name: string,
    /** Milliseconds that `xl create` took. */
    readonly createTime: number,
    stubdom: boolean,
    onSerial: (line: string) => void = () => {},
  ) {
    this.#faultsBefore = host.guestFaults.length;
    // A guest that reboots gets new domains and a new console. Each is followed once, as soon as it has its
    // terminal: `xl console` takes the PV console of a guest that is not complete for the serial port, and one
    // that is attached to a dying domain may stay with it for ever. What is typed goes to the terminal itself:
    // Xen 4.20's xenconsole reads its standard input from a terminal only.
    const terminal = stubdom
      ? 'xenstore-read "/local/domain/$(xenstore-read "/local/domain/$id/image/device-model-domid")/device/console/3/tty"'
      : 'xenstore-read "/local/domain/$id/serial/0/tty"';
    const follow = `gone=0 last= writer=
      exec 3<&0
      while [ $gone -lt 40 ]; do
        if ! id=$(xl domid "$1"); then gone=$((gone + 1))
        elif [ "$id" != "$last" ] && tty=$(${terminal}) && [ -n "$tty" ]; then
          gone=0 last=$id
          cat <&3 >"$tty" & writer=$!
          xl console "$1"
          kill $writer
        fi 2> /dev/null
        sleep 0.25
      done`;
    this.#follower = host.spawn(["/bin/sh", "-c", follow, "follow", name]);
    const decoder = new TextDecoder();
    const split = lineSplitter((line) => {
      this.#lines.push(line);
      onSerial(line);
      for (const waiter of this.#waiters) if (waiter.matches(line)) waiter.resolve(line);
    });
    this.#follower.on("stdout", (chunk) => {
      const text = decoder.decode(chunk, { stream: true });
      this.#partial = (this.#partial + text).split("\n").at(-1) ?? "";
      split(text);
    });
  }

  /** The whole console so far, the unfinished line included. */
  get serial(): string {
    return [...this.#lines, this.#partial].join("\n");
  }

  /** Whole lines of the console so far. */
  get serialLines(): readonly string[] {
    return this.#lines;
  }

  /**
   * The first line, of all since `from` (an index into {@link serialLines}), that holds the text or matches.
   * Rejects after `seconds`, {@link PATIENCE} times, with {@link Timeout}, or with {@link EmulatorFault} if the emulator
   * killed a guest meanwhile.
   */
  async waitForSerial(wanted: string | RegExp, seconds: number, from = 0): Promise<string> {
    const matches = (line: string): boolean =>
      typeof wanted === "string" ? line.includes(wanted) : wanted.test(line);
    const known = this.#lines.slice(from).find(matches);
    if (known !== undefined) return known;
    return new Promise<string>((resolve, reject) => {
      const end = (): void => {
        clearTimeout(timer);
        clearInterval(poll);
        this.#waiters.delete(waiter);
      };
      const fail = (error: Error): void => {
        end();
        reject(error);
      };
      const waiter: Waiter = {
        matches,
        resolve: (line) => {
          end();
          resolve(line);
        },
      };
      const timer = setTimeout(
        () => {
          const last = this.serial.split("\n").slice(-15).join("\n");
          fail(
            new Timeout(
              `${this.name}: no ${String(wanted)} on the console in ${seconds * PATIENCE} s; last lines:\n${last}`,
            ),
          );
        },
        seconds * PATIENCE * 1000,
      );
      const poll = setInterval(() => {
        const fault = this.host.guestFaults.slice(this.#faultsBefore).at(0);
        if (fault !== undefined) fail(new EmulatorFault(`${this.name}: ${fault}`, this.host.log));
      }, 1000);
      this.#waiters.add(waiter);
      this.#follower.exited
        .then(async () => {
          const xl = await this.host.run(`cat /var/log/xen/xl-${this.name}.log`, { accept: "any" });
          const logs = [this.serial, await this.qemuDmLog(), xl.stdout].join("\n--\n");
          fail(
            new LabError(`${this.name} ended before ${String(wanted)}; console, stub domain, xl:\n${logs}`),
          );
        })
        .catch(fail);
    });
  }

  /** Types on the serial console. */
  type(text: string): void {
    this.#follower.write(Buffer.from(text));
  }

  async domid(): Promise<number> {
    return Number((await this.host.run(["xl", "domid", this.name])).stdout);
  }

  /** The stub domain's id; rejects when the guest has none. */
  async stubdomId(): Promise<number> {
    return Number((await this.host.run(["xl", "domid", `${this.name}-dm`])).stdout);
  }

  /** What the stub domain says of itself: path below `/local/domain/S/device-model/T/agent` -> value. */
  async agent(): Promise<Record<string, string>> {
    const [stub, target] = [await this.stubdomId(), await this.domid()];
    const path = `/local/domain/${stub}/device-model/${target}/agent`;
    const all = await xenstoreLs(this.host, path);
    return Object.fromEntries(Object.entries(all).map(([key, value]) => [key.slice(path.length + 1), value]));
  }

  /** The stub domain's log, as dom0 keeps it. */
  qemuDmLog(): Promise<string> {
    return dmLog(this.host, this.name);
  }

  /** Follows the console no longer: one that is restored is followed anew. The guest is left as it is. */
  leave(): void {
    this.#follower.kill(15);
  }

  /** Destroys the guest and its stub domain. May be called twice. */
  async destroy(): Promise<void> {
    await this.host.run(["xl", "destroy", this.name], { accept: "any" });
    this.#follower.kill(15);
  }
}
