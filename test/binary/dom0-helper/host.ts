/** dom0 around the compiled helper, and stub domains that ask it for disks. */

import { type ChildProcess, spawn } from "node:child_process";
import {
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "vitest";
import { silentLogger } from "../../../agent/log/logger.ts";
import type { Clock } from "../../../agent/platform/port.ts";
import { type BlockStore, DiskWriter, openDisk } from "../../../agent/savestate/disk.ts";
import { HelperLink } from "../../../agent/savestate/helper-link.ts";
import { answerNode, stateDevice } from "../../../agent/savestate/protocol.ts";
import { footerSize, StateSums, stateLength } from "../../../agent/savestate/tail.ts";
import { XenstoreClient } from "../../../agent/xenstore/client.ts";
import { RealClock } from "../../fakes/clock.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";
import { XenstoredSocket } from "../../fakes/xenstored-socket.ts";
import { xxh64 } from "../../fakes/xxh64.ts";

const program = "dist/stubdom";
const device = stateDevice.number;

export const realClock: Clock = new RealClock();

export async function until(what: () => boolean, of: string, milliseconds = 15_000): Promise<void> {
  const end = Date.now() + milliseconds;
  while (!what()) {
    if (Date.now() > end) throw new Error(`not in ${milliseconds} ms: ${of}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/**
 * The helper is the compiled program, its files and loop devices are real; xenstored is the tests' own, behind a
 * socket, and the kernels' block backend and frontends are played: they hold the loop device open as xen-blkback
 * does, and connect and close as xenstore tells them.
 */
export class Dom0 {
  readonly directory = mkdtempSync(join(tmpdir(), "stubdom-dom0-"));
  readonly xenDirectory = join(this.directory, "xen");
  readonly stateDirectory = join(this.directory, "state");
  readonly daemon = new FakeXenstored({ largestPiece: 4096 });
  readonly #kernel = new XenstoreClient(this.daemon.connect(0), realClock);
  /** What the backend holds open, by the backend's path. */
  readonly #held = new Map<string, number>();
  /** Called with each request of the helper's, numbers in it replaced by `N`, before it is answered. */
  onHelperRequest: (request: string) => void = () => {};
  #socket: XenstoredSocket | undefined;
  #helper: ChildProcess | undefined;
  /** What all helpers said. */
  log = "";

  static async start(): Promise<Dom0> {
    const dom0 = new Dom0();
    mkdirSync(dom0.xenDirectory);
    mkdirSync(dom0.stateDirectory);
    dom0.daemon.set("/local/domain/0/backend/vbd", "");
    await dom0.#kernel.watch("/local/domain/0/backend/vbd", (path) => dom0.#backendChanged(path));
    dom0.daemon.onRequest = (request, domid) => {
      if (domid === 0) dom0.onHelperRequest(request.replace(/\d+/g, "N"));
    };
    dom0.#socket = await XenstoredSocket.listen(dom0.daemon, dom0.socketPath);
    return dom0;
  }

  get socketPath(): string {
    return join(this.directory, "xenstored");
  }

  async stop(): Promise<void> {
    await this.stopHelper("SIGTERM");
    this.#socket?.close();
    this.#kernel.close();
    for (const fd of this.#held.values()) closeSync(fd);
    rmSync(this.directory, { recursive: true });
  }

  /** Starts the helper; resolves when it has met every stub domain. */
  async startHelper(...options: string[]): Promise<void> {
    const places = ["--directory", this.stateDirectory, "--xen-directory", this.xenDirectory];
    const args = ["dom0", "serve", "--debug", ...places, "--xenstored", this.socketPath, ...options];
    const helper = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
    this.#helper = helper;
    const from = this.log.length;
    const take = (text: Buffer) => {
      this.log += text.toString();
    };
    helper.stdout.on("data", take);
    helper.stderr.on("data", take);
    const says = () => this.log.slice(from);
    await until(() => says().includes("serves state disks") || helper.exitCode !== null, "a helper");
    if (helper.exitCode !== null) throw new Error(`the helper ended: ${says()}`);
  }

  get helperPid(): number {
    return this.#helper?.pid ?? 0;
  }

  /** At once; what it holds goes with the process, which {@link stopHelper} waits for. */
  killHelper(): void {
    this.#helper?.kill("SIGKILL");
  }

  async stopHelper(signal: "SIGTERM" | "SIGKILL"): Promise<void> {
    const helper = this.#helper;
    this.#helper = undefined;
    if (helper === undefined || helper.exitCode !== null || helper.signalCode !== null) return;
    const ended = new Promise((resolve) => helper.once("close", resolve));
    helper.kill(signal);
    await ended;
  }

  /** KiB, the most that the helper ever had resident. */
  get helperPeak(): number {
    return Number(
      /VmHWM:\s*(\d+)/.exec(readFileSync(`/proc/${this.helperPid}/status`, "utf8"))?.[1] ?? Number.NaN,
    );
  }

  get helperDescriptors(): number {
    return readdirSync(`/proc/${this.helperPid}/fd`).length;
  }

  /** QEMU's state in the file that libxl reads; its checksums stand behind it. */
  saved(target: number): Buffer | undefined {
    const path = join(this.xenDirectory, `qemu-save.${target}`);
    if (!existsSync(path)) return undefined;
    const file = readFileSync(path);
    return file.subarray(0, stateLength(file.length, file.subarray(-footerSize)));
  }

  /** What libxl has received for a guest. */
  received(target: number, state: Uint8Array): void {
    const sums = new StateSums(xxh64);
    sums.add(state);
    writeFileSync(join(this.xenDirectory, `qemu-resume.${target}`), Buffer.concat([state, sums.tail()]));
  }

  /** Loop devices over files of this dom0. */
  get loops(): string[] {
    return readdirSync("/sys/block").filter((name) => {
      const path = `/sys/block/${name}/loop/backing_file`;
      return name.startsWith("loop") && existsSync(path) && read(path).includes(this.directory);
    });
  }

  addStubdom(domid: number, target: number): void {
    const { daemon } = this;
    daemon.set(`/local/domain/${domid}`, "");
    daemon.permit(`/local/domain/${domid}`, [
      { domid: 0, access: "none" },
      { domid, access: "read" },
    ]);
    daemon.set(`/local/domain/${target}/image/device-model-domid`, String(domid));
    daemon.set(
      `/local/domain/${target}/vm`,
      `/vm/00000000-0000-0000-0000-${String(target).padStart(12, "0")}`,
    );
    daemon.set(`/local/domain/${domid}/target`, String(target));
    const model = `/local/domain/${domid}/device-model/${target}`;
    daemon.set(model, "");
    daemon.permit(model, [{ domid, access: "none" }]);
    daemon.set(`/local/domain/${domid}/device/vbd`, "");
    daemon.introduceDomain(domid);
  }

  /** As libxl does: the devices that it knows, then the nodes, then the guest's file, then the domain. */
  destroy(domid: number, target: number): void {
    for (const path of [
      `/local/domain/0/backend/vbd/${domid}`,
      `/local/domain/${domid}`,
      `/local/domain/${target}`,
      `/libxl/${domid}`,
    ]) {
      if (this.daemon.get(path) !== undefined) this.daemon.remove(path);
    }
    for (const file of [`qemu-save.${target}`, `qemu-resume.${target}`])
      rmSync(join(this.xenDirectory, file), { force: true });
    this.daemon.releaseDomain(domid);
  }

  /** Resolves when the helper has prepared for the stub domain. */
  met(domid: number): Promise<void> {
    return until(() => this.daemon.get(answerNode(domid)) !== undefined, `the helper meets domain ${domid}`);
  }

  /** Resolves when the helper has asked nothing for a while. */
  async quiet(): Promise<void> {
    for (let before = -1; before !== this.daemon.requests.length; ) {
      before = this.daemon.requests.length;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }

  /** Nothing of any transfer is left, but for files under their final name. */
  async expectNothingLeft(domids: readonly number[], label = ""): Promise<void> {
    const nodes = (domid: number) =>
      [
        `/local/domain/${domid}/device/vbd/${device}`,
        `/local/domain/0/backend/vbd/${domid}`,
        `/libxl/${domid}/device/vbd/${device}`,
      ].filter((node) => this.daemon.get(node) !== undefined);
    await until(() => domids.flatMap(nodes).length === 0, `${label}: ${domids.flatMap(nodes).join(" ")} go`);
    await until(() => this.loops.length === 0, `${label}: ${this.loops.join(" ")} go`);
    expect(
      readdirSync(this.xenDirectory).filter((name) => !name.startsWith("qemu-")),
      label,
    ).toEqual([]);
    expect(readdirSync(this.stateDirectory), label).toEqual(["lock"]);
  }

  #backendChanged(path: string): void {
    const domid = /^\/local\/domain\/0\/backend\/vbd\/(\d+)/.exec(path)?.[1];
    if (domid === undefined) return;
    const back = `/local/domain/0/backend/vbd/${domid}/${device}`;
    const front = `/local/domain/${domid}/device/vbd/${device}`;
    const state = this.daemon.get(`${back}/state`);
    const held = this.#held.get(back);
    if (state === undefined || state === "5") {
      if (held !== undefined) closeSync(held);
      this.#held.delete(back);
      if (state === undefined) return;
      if (this.daemon.get(front) !== undefined) this.daemon.set(`${front}/state`, "6", Number(domid));
      this.daemon.set(`${back}/state`, "6");
    } else if (state === "1" && held === undefined) {
      const minor = Number.parseInt(this.daemon.get(`${back}/physical-device`)?.split(":")[1] ?? "", 16);
      // Of a helper that was killed: there is nothing behind it any more.
      if (!this.loops.includes(`loop${minor}`)) return;
      this.#held.set(back, openSync(`/dev/loop${minor}`, "r+"));
      this.daemon.set(`${back}/state`, "4");
      this.daemon.set(`${front}/state`, "4", Number(domid));
    }
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    // It went between the look and the read.
    return "";
  }
}

/** Steps of a stub domain's save or restore, at which a test can step in. */
export type ClientStep =
  | ("ask" | "attached" | "write" | "grow" | "written" | "commit" | "placed")
  | ("verified" | "read" | "release" | "released");

/** The stub domain's side of a save, without QEMU: the agent's own link and writer over the real disk. */
export class Stubdom {
  readonly #clock = new RealClock();
  readonly #xenstore: XenstoreClient;
  readonly #link: HelperLink;

  constructor(
    readonly dom0: Dom0,
    readonly domid: number,
    readonly target: number,
  ) {
    this.#xenstore = new XenstoreClient(dom0.daemon.connect(domid), this.#clock);
    this.#link = new HelperLink(this.#xenstore, this.#clock, silentLogger, domid, target);
  }

  /** From now on it is less patient than in earnest: a helper that was killed is given up sooner. */
  hurry(): void {
    this.#clock.run(16);
  }

  close(): void {
    this.#xenstore.close();
  }

  /** @param step is called before each step and may throw: the stub domain has died then */
  async save(state: Uint8Array, step: (name: ClientStep) => void = () => {}): Promise<void> {
    step("ask");
    await this.#link.ask({ verb: "save", bytes: 1 << 20 }, "attached");
    step("attached");
    const name = await this.#loop();
    const fd = openSync(`/dev/${name}`, "r+");
    let length: number;
    try {
      const store = this.#store(fd, name, step);
      const uuid = `00000000-0000-0000-0000-${String(this.target).padStart(12, "0")}`;
      const writer = await DiskWriter.begin(store, { uuid, qemuVersion: "10.0" }, xxh64);
      await writer.append(state);
      step("written");
      length = (await writer.commit()).commit.length;
    } finally {
      closeSync(fd);
    }
    step("commit");
    const { bytes } = await this.#link.ask({ verb: "commit", bytes: length }, "placed");
    step("placed");
    expect(bytes).toBe(state.length);
  }

  /** What a restore would give to QEMU. */
  async restore(step: (name: ClientStep) => void = () => {}): Promise<Buffer> {
    step("ask");
    await this.#link.ask({ verb: "restore" }, "attached");
    step("attached");
    const name = await this.#loop();
    const fd = openSync(`/dev/${name}`, "r");
    const parts: Buffer[] = [];
    try {
      const reader = await openDisk(this.#store(fd, name, step), xxh64);
      await reader.read();
      step("verified");
      await reader.read((part) => {
        step("read");
        parts.push(Buffer.from(part));
      });
    } finally {
      closeSync(fd);
    }
    step("release");
    await this.#link.ask({ verb: "release" }, "released");
    step("released");
    return Buffer.concat(parts);
  }

  /** Resolves to the loop device behind the disk, once it is connected. */
  async #loop(): Promise<string> {
    const state = `/local/domain/${this.domid}/device/vbd/${device}/state`;
    await until(() => this.dom0.daemon.get(state) === "4", "the disk", 2000);
    const back = `/local/domain/0/backend/vbd/${this.domid}/${device}/physical-device`;
    return `loop${Number.parseInt(this.dom0.daemon.get(back)?.split(":")[1] ?? "", 16)}`;
  }

  #store(fd: number, name: string, step: (name: ClientStep) => void): BlockStore {
    const size = () => Number(readFileSync(`/sys/block/${name}/size`, "utf8")) * 512;
    return {
      get size() {
        return size();
      },
      read: async (offset, into) => readSync(fd, into, 0, into.length, offset),
      write: async (offset, from) => {
        step("write");
        writeSync(fd, from, 0, from.length, offset);
      },
      flush: async () => fsyncSync(fd),
      grow: async (bytes) => {
        step("grow");
        await this.#link.ask({ verb: "grow", bytes }, "grown");
        expect(size()).toBeGreaterThanOrEqual(bytes);
      },
      buffer: (bytes) => new Uint8Array(bytes),
    };
  }
}
