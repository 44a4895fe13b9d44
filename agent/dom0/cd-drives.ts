/**
 * CD drives that dom0's QEMU has refused.
 *
 * For an image file libxl takes QEMU in dom0 as the backend (qdisk), also for a drive of a stub domain that `xl cd-eject`
 * has emptied. QEMU (hw/xen/xen-bus.c and hw/block/xen-block.c) cannot be the backend of a drive without an image: it
 * refuses the device and, from 8.2 to 10.0 at least, from then on passes over whatever has that number. So
 *
 *     nobody answers when libxl closes the empty drive          `xl cd-insert` fails after 10 s
 *     nobody serves the medium that is inserted then            `xl cd-insert` fails after 40 s
 *
 * Here the former is answered, and QEMU gets the latter as a device of its own over QMP, as it would have made it: the node
 * in xenstore is libxl's, and QEMU closes the device when libxl says so. All nodes that are read here are dom0's own.
 */
import { isEmptyMedium } from "../frontends/block.ts";
import { parseState, readNodes, XenbusState } from "../frontends/xenbus.ts";
import type { Logger } from "../log/logger.ts";
import type { Clock, FileSystem, Platform } from "../platform/port.ts";
import { longAnswer, type QmpEvent } from "../qmp/client.ts";
import { QmpCommandError, QmpTimeout } from "../qmp/errors.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "../qmp/json.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import type { Operations } from "../xenstore/operations.ts";
import type { BackendQemu } from "./backend-qemu.ts";
import { NodeWatch } from "./xenstore.ts";

/** The stub domain refuses the fifth already. */
const mostDrives = 128;
/** How long QEMU may take to give an image back, in milliseconds. */
const deadline = 5_000;
/** How long it may take to open one: a CD that has to spin up, a file far away. libxl waits for 40 s in all. */
const opening = 30_000;
/** Between two looks, in milliseconds. */
const interval = 20;
/** Written by QEMU alone, when it takes a device on. */
const taken = "hotplug-status";
/** Left in the node of a drive that QEMU has by our doing, for a helper that starts later. */
const ours = "served-by";

/** A drive by what became of its devices. */
interface Drive {
  /** dom0's QEMU has refused one, and so all that come. */
  refused: boolean;
  /** It has had one from here. */
  served: boolean;
  /** Its present medium could not be served. */
  failed: boolean;
}

interface Context {
  readonly platform: Platform;
  readonly xenstore: XenstoreClient;
  readonly log: Logger;
}

/** What a CD drive's node says of its medium. */
export interface Medium {
  /** The drive's number. */
  readonly id: number;
  /** The drive's name, `hdc`. */
  readonly vdev: string;
  /** `aio:/path` or `qcow2:/path`, as libxl writes it. */
  readonly params: string;
}

/** dom0's QEMU, as far as it is needed here. */
export interface CdBackend {
  /** After {@link release}. @throws QmpError, SystemError */
  serve(medium: Medium): Promise<void>;
  /** Closes the images that the drive has had from {@link serve} and no longer has. @throws QmpError, SystemError */
  release(id: number): Promise<void>;
}

/** What a look at a drive's node led to; all of it was read, and written, at one time. */
type Finding = "taken" | "ours" | "closed" | "emptied" | Medium | undefined;

/** Follows the CD drives of one stub domain. */
export class BackendCdDrives {
  readonly #directory: string;
  readonly #watch = new NodeWatch();
  readonly #drives = new Map<number, Drive>();
  /** Numbers to be looked at; the frontend is the stub domain's, and each of its states is an event. */
  readonly #pending = new Set<number>();
  #last = Promise.resolve();
  #nextLook = 0;

  constructor(
    private readonly context: Context,
    private readonly domid: number,
    private readonly qemu: CdBackend,
  ) {
    this.#directory = `/local/domain/0/backend/qdisk/${domid}`;
  }

  /** Throws {@link XenstoreFailure}. */
  start(): Promise<void> {
    return this.#watch.set(this.context.xenstore, this.#directory, (path) => this.#changed(path));
  }

  /** Resolves when nothing is under way any more. Idempotent. */
  stop(): Promise<void> {
    this.#watch.stop();
    return this.#last;
  }

  #changed(path: string): void {
    const [, name, node] = /^\/([0-9]{1,10})(?:\/(.*))?$/.exec(path.slice(this.#directory.length)) ?? [];
    if (name === undefined) {
      // The watch's first event: what is there already.
      if (path === this.#directory) this.#inTurn(() => this.#lookForDrives());
    } else if (node === undefined || node === "state" || node === "params") {
      this.#lookLater(Number(name));
    }
  }

  #lookLater(id: number): void {
    if (this.#pending.has(id) || this.#pending.size >= mostDrives) return;
    this.#pending.add(id);
    this.#inTurn(async () => {
      await this.#pace();
      this.#pending.delete(id);
      if (!this.#watch.stopped) await this.#look(id);
    });
  }

  async #pace(): Promise<void> {
    const { clock } = this.context.platform;
    const wait = this.#nextLook - clock.now();
    if (wait > 0) await new Promise<void>((resolve) => clock.setTimer(wait, resolve));
    this.#nextLook = clock.now() + interval;
  }

  #inTurn(act: () => Promise<void>): void {
    this.#last = this.#last.then(act).catch((error: unknown) => {
      if (!this.#watch.stopped) this.#failed(error);
    });
  }

  #failed(error: unknown): void {
    this.context.log.error({}, `domain ${this.domid}: its CD drives: ${String(error)}`);
  }

  async #lookForDrives(): Promise<void> {
    const names = await this.context.xenstore.tryDirectory(this.#directory);
    for (const name of names) if (/^[0-9]{1,10}$/.test(name)) this.#lookLater(Number(name));
  }

  async #look(id: number): Promise<void> {
    const { log, xenstore } = this.context;
    const drive = this.#drives.get(id) ?? { refused: false, served: false, failed: false };
    if (!this.#drives.has(id) && this.#drives.size >= mostDrives) return;
    const found = await xenstore.transaction((tx) => judge(tx, `${this.#directory}/${id}`, id, drive));
    if (found === undefined) return;
    this.#drives.set(id, drive);
    if (found === "taken" || found === "ours") {
      drive.failed = false;
      if (found === "ours") drive.served = drive.refused = true;
      return;
    }
    drive.refused = true;
    if (found === "closed" || found === "emptied") drive.failed = false;
    if (found === "closed") {
      log.info({}, `domain ${this.domid}: CD drive ${id} closed in place of dom0's QEMU`);
    } else if (found !== "emptied") {
      await this.#serve(found, drive);
    } else if (drive.served) {
      await this.qemu.release(id);
      drive.served = false;
    }
  }

  async #serve(medium: Medium, drive: Drive): Promise<void> {
    // Said and tried once: each of its nodes is an event.
    drive.failed = true;
    // Also what an earlier helper left. If QEMU holds on to it, that is no reason to go without the new one.
    await this.qemu.release(medium.id).catch((error: unknown) => this.#failed(error));
    drive.served = true;
    await this.qemu.serve(medium);
    drive.failed = false;
    this.context.log.info({}, `domain ${this.domid}: ${medium.vdev} has ${medium.params}, by dom0's QEMU`);
  }
}

/**
 * What is to be done about a drive. Of that, this writes what xenstore has to be told: `closed` where QEMU does not, and
 * our mark before QEMU gets a medium.
 */
async function judge(tx: Operations, path: string, id: number, drive: Drive): Promise<Finding> {
  const names = ["device-type", "dev", "params", "state", "online", taken, ours] as const;
  const node = await readNodes(tx, path, names);
  const { dev: vdev, params } = node;
  if (node["device-type"] !== "cdrom" || vdev === undefined || params === undefined) return undefined;
  const marked = node[ours] !== undefined;
  if (node[taken] !== undefined) return marked ? "ours" : "taken";
  const state = parseState(`${path}/state`, node.state);
  if (state === XenbusState.Closing) {
    await tx.write(`${path}/state`, String(XenbusState.Closed));
    return "closed";
  }
  if (state !== XenbusState.Initialising || node.online !== "1") return undefined;
  if (isEmptyMedium(params)) return "emptied";
  if (drive.failed || !(drive.refused || marked)) return undefined;
  await tx.write(`${path}/${ours}`, "stubdom");
  return { id, vdev, params };
}

/** Over QMP, in a conversation each. */
export class QmpCdBackend implements CdBackend {
  constructor(
    private readonly platform: Pick<Platform, "clock" | "files">,
    private readonly qemu: Pick<BackendQemu, "talk">,
  ) {}

  serve({ id, vdev, params }: Medium): Promise<void> {
    const { clock, files } = this.platform;
    // No name is used twice, not by a helper that starts later either.
    const name = `${prefix(id)}${Math.floor(clock.now())}`;
    return this.qemu.talk(async (qmp) => {
      if (!refusesForGood(await qmp.execute("query-version"))) return;
      await qmp.execute("blockdev-add", blockNode(name, params, files), opening);
      try {
        await qmp.execute("device_add", { driver: "xen-cdrom", id: name, vdev, drive: name }, opening);
      } catch (error) {
        await qmp.execute("blockdev-del", { "node-name": name }).catch(() => {});
        throw error;
      }
    });
  }

  release(id: number): Promise<void> {
    const { clock } = this.platform;
    const deleted = new DeletedDevices(clock);
    return this.qemu.talk(
      async (qmp) => {
        const answer = await qmp.execute("query-named-block-nodes", { flat: true }, deadline, longAnswer);
        for (const name of nodesOf(id, answer)) {
          const remove = () => qmp.execute("blockdev-del", { "node-name": name });
          try {
            await remove();
          } catch (error) {
            // In use: QEMU lets go of a device some time after libxl has heard that it is closed.
            if (!(error instanceof QmpCommandError)) throw error;
            await deleted.wait(name);
            await remove();
          }
        }
      },
      (event) => deleted.saw(event),
    );
  }
}

/** Whether this QEMU remembers what it has refused, which began with 8.2; before, it looks at each new medium itself. */
function refusesForGood(answer: JsonValue): boolean {
  const version = isJsonObject(answer) && isJsonObject(answer.qemu) ? answer.qemu : {};
  return Number(version.major) > 8 || (Number(version.major) === 8 && Number(version.minor) >= 2);
}

/** Devices that QEMU has told the end of, in one conversation. */
class DeletedDevices {
  readonly #names = new Set<string>();
  #wake = () => {};

  constructor(private readonly clock: Clock) {}

  saw({ name, data }: QmpEvent): void {
    if (name !== "DEVICE_DELETED" || typeof data.device !== "string") return;
    this.#names.add(data.device);
    this.#wake();
  }

  /** One at a time. @throws QmpTimeout */
  wait(name: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = this.clock.setTimer(deadline, () =>
        reject(new QmpTimeout(`the end of ${name}`, deadline)),
      );
      this.#wake = () => {
        if (!this.#names.has(name)) return;
        timer.cancel();
        resolve();
      };
      this.#wake();
    });
  }
}

function prefix(id: number): string {
  return `stubdom-cd-${id}-`;
}

/** The nodes that {@link QmpCdBackend.serve} has made for this drive, in an answer to `query-named-block-nodes`. */
export function nodesOf(id: number, answer: JsonValue): string[] {
  const nodes = Array.isArray(answer) ? answer : [];
  const names = nodes.map((node) => (isJsonObject(node) ? node["node-name"] : undefined));
  return names.filter((name): name is string => typeof name === "string" && name.startsWith(prefix(id)));
}

/**
 * What QEMU makes of `params` itself (xen_block_drive_create of its hw/block/xen-block.c), for a CD: an image that is
 * read, and not locked, since it may be in other drives as well. `direct-io-safe` is left out.
 */
export function blockNode(name: string, params: string, files: Pick<FileSystem, "status">): JsonObject {
  const [, format = "", filename = ""] = /^([^:]*):(.*)$/s.exec(params) ?? ["", "aio", params];
  const driver = format === "aio" ? "raw" : format === "vhd" ? "vpc" : format;
  const file = { driver: protocolOf(filename, files), filename, "read-only": true, locking: "off" };
  return { "node-name": name, driver, "read-only": true, file };
}

/**
 * Links are followed, as QEMU does (`/dev/cdrom`). The helper may not see all that QEMU sees: what it cannot find QEMU is to
 * open, or to say what is wrong with it.
 */
function protocolOf(filename: string, files: Pick<FileSystem, "status">): string {
  try {
    return files.status(filename, "follow").kind === "block" ? "host_device" : "file";
  } catch {
    return "file";
  }
}
