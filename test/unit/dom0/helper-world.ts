import { expect } from "vitest";
import { Helper } from "../../../agent/dom0/helper.ts";
import { defaultSettings, type HelperSettings } from "../../../agent/dom0/settings.ts";
import { type Logger, silentLogger } from "../../../agent/log/logger.ts";
import { stateDevice } from "../../../agent/savestate/protocol.ts";
import { StateSaver } from "../../../agent/savestate/save.ts";
import { footerSize, stateLength } from "../../../agent/savestate/tail.ts";
import { type FakeProcess, FakeSavingQemu, FakeXenHost } from "../../fakes/xen-host.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";

export const settings: HelperSettings = { ...defaultSettings, limit: 1 << 20, keepFree: 0 };

/** By the clock, and longer than anything here waits for anything: a busy machine is no failure. */
export async function until(what: () => boolean): Promise<void> {
  const began = Date.now();
  while (!what() && Date.now() - began < 20_000) await new Promise((resolve) => setTimeout(resolve, 2));
  expect(what(), String(what)).toBe(true);
}

/** A Xen host with xenstored, for helpers in dom0 and stub domains that save. */
export class HelperWorld {
  readonly daemon = new FakeXenstored({ largestPiece: 4096 });
  readonly host = new FakeXenHost(this.daemon);
  /** All that were started, in order. */
  readonly running: { helper: Helper; process: FakeProcess }[] = [];

  static async start(): Promise<HelperWorld> {
    const world = new HelperWorld();
    await world.host.start();
    return world;
  }

  async stop(): Promise<void> {
    for (const { helper, process } of this.running.splice(0)) if (!process.dead) await helper.stop();
    this.host.stop();
  }

  async startHelper(own: Partial<HelperSettings> = {}, log: Logger = silentLogger) {
    const process = this.host.process(0);
    const helper = new Helper(process.platform, process.connect(), log, { ...settings, ...own }, () => {});
    this.running.push({ helper, process });
    await helper.start();
    return { helper, process };
  }

  stubdom(domid: number, target: number, state: Uint8Array, failAt?: number) {
    const process = this.host.process(domid);
    const xenstore = process.connect();
    const context = { platform: process.platform, xenstore, log: silentLogger, domid, target };
    const qemu = new FakeSavingQemu(process, state, failAt);
    const saver = new StateSaver(context, qemu);
    return { process, xenstore, qemu, save: () => saver.handler({ filename: "/dev/fdset/1", live: true }) };
  }

  /** QEMU's state in the file that libxl reads; its checksums stand behind it. */
  saved(target: number): Uint8Array | undefined {
    const file = this.host.file(`/var/lib/xen/qemu-save.${target}`);
    return file?.subarray(0, stateLength(file.length, file.subarray(-footerSize)));
  }

  /** Nothing of a transfer is left anywhere, but for what is meant to be. */
  expectNothingLeft(domid: number): void {
    const { number } = stateDevice;
    expect(this.daemon.get(`/local/domain/${domid}/device/vbd/${number}`)).toBeUndefined();
    expect(this.daemon.get(`/local/domain/0/backend/vbd/${domid}`)).toBeUndefined();
    expect(this.daemon.get(`/libxl/${domid}/device/vbd/${number}`)).toBeUndefined();
    expect(this.host.loops).toEqual([]);
    expect([...this.host.dom0Files.keys()].filter((path) => path.includes(".linux-stubdom"))).toEqual([]);
  }
}
