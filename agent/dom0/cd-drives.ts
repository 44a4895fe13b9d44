/**
 * CD drives that dom0's QEMU has refused.
 *
 * For an image file libxl takes QEMU in dom0 as the backend (qdisk), also for a drive of a stub domain that `xl cd-eject`
 * has emptied. QEMU (hw/xen/xen-bus.c and hw/block/xen-block.c, 7.2 to 10.0) cannot be the backend of a drive without an
 * image: it refuses the device, and from then on passes over whatever has that number ("exists already"). So
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
import { withBackendQemu } from "./backend-qemu.ts";
import { NodeWatch } from "./xenstore.ts";

/** libxl's drives have at most this many numbers; the fifth CD drive is refused by the stub domain already. */
const mostDrives = 128;
/** How long QEMU may take to give an image back, in milliseconds. */
const deadline = 5_000;
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
  /** @throws QmpError, SystemError */
  serve(medium: Medium): Promise<void>;
  /** Closes the images that the drive has had from {@link serve} and no longer has. @throws QmpError, SystemError */
  release(id: number): Promise<void>;
}

/** Follows the CD drives of one stub domain. */
export class BackendCdDrives {
  readonly #directory: string;
  readonly #watch = new NodeWatch();
  #last = Promise.resolve();
  readonly #drives = new Map<number, Drive>();

  constructor(
    private readonly context: Context,
    private readonly domid: number,
    private readonly qemu: CdBackend = new QmpCdBackend(context, domid),
  ) {
    this.#directory = `/local/domain/0/backend/qdisk/${domid}`;
  }

  /** Throws {@link XenstoreFailure}. */
  start(): Promise<void> {
    return this.#watch.set(this.context.xenstore, this.#directory, (path) => this.#changed(path));
  }

  /** Idempotent. */
  stop(): void {
    this.#watch.stop();
  }

  /** One node after the other: libxl writes them in transactions, and no answer waits for a later one. */
  #changed(path: string): void {
    const [, name, node] = /^\/([0-9]{1,10})(?:\/(.*))?$/.exec(path.slice(this.#directory.length)) ?? [];
    if (name === undefined) {
      // The watch's first event: what is there already.
      if (path === this.#directory) this.#inTurn(() => this.#lookAtAll());
    } else if (node === undefined || node === "state" || node === "params") {
      this.#inTurn(() => this.#look(Number(name)));
    }
  }

  #inTurn(act: () => Promise<void>): void {
    this.#last = this.#last.then(act).catch((error: unknown) => {
      if (!this.#watch.stopped)
        this.context.log.error({}, `domain ${this.domid}: its CD drives: ${String(error)}`);
    });
  }

  async #lookAtAll(): Promise<void> {
    const names = await this.context.xenstore.tryDirectory(this.#directory);
    for (const name of names) if (/^[0-9]{1,10}$/.test(name)) await this.#look(Number(name));
  }

  async #look(id: number): Promise<void> {
    if (this.#watch.stopped || (!this.#drives.has(id) && this.#drives.size >= mostDrives)) return;
    const path = `${this.#directory}/${id}`;
    const names = ["device-type", "dev", "params", "state", "online", taken, ours] as const;
    const node = await readNodes(this.context.xenstore, path, names);
    if (node["device-type"] !== "cdrom" || node.dev === undefined || node.params === undefined) return;
    const drive = this.#drives.get(id) ?? { refused: false, served: false, failed: false };
    this.#drives.set(id, drive);
    if (node[ours] !== undefined) drive.served = drive.refused = true;
    if (node[taken] !== undefined) return;
    const state = parseState(`${path}/state`, node.state);
    if (state === XenbusState.Closing) {
      // Refused, for whatever reason: QEMU is told of the new device before libxl has anything else to do with it.
      drive.refused = true;
      drive.failed = false;
      if (await this.#close(path))
        this.context.log.info({}, `domain ${this.domid}: ${node.dev} closed in place of dom0's QEMU`);
    } else if (state === XenbusState.Initialising && node.online === "1") {
      if (isEmptyMedium(node.params)) await this.#emptied(id, drive);
      else if (drive.refused && !drive.failed)
        await this.#inserted({ id, vdev: node.dev, params: node.params }, drive);
    }
  }

  /** Whether it was still to be closed: libxl may have given up meanwhile, and a node that is gone must not come back. */
  #close(path: string): Promise<boolean> {
    return this.context.xenstore.transaction(async (tx) => {
      const now = await readNodes(tx, path, ["state", taken]);
      if (now.state !== String(XenbusState.Closing) || now[taken] !== undefined) return false;
      await tx.write(`${path}/state`, String(XenbusState.Closed));
      return true;
    });
  }

  async #emptied(id: number, drive: Drive): Promise<void> {
    drive.refused = true;
    drive.failed = false;
    if (!drive.served) return;
    drive.served = false;
    await this.qemu.release(id);
  }

  async #inserted(medium: Medium, drive: Drive): Promise<void> {
    const { log, xenstore } = this.context;
    // Said and tried once: each of its nodes is an event.
    drive.failed = true;
    if (drive.served) await this.qemu.release(medium.id);
    drive.served = true;
    await this.qemu.serve(medium);
    drive.failed = false;
    const path = `${this.#directory}/${medium.id}`;
    await xenstore.transaction(async (tx) => {
      if ((await tx.tryReadText(`${path}/state`)) !== undefined) await tx.write(`${path}/${ours}`, "stubdom");
    });
    log.info({}, `domain ${this.domid}: ${medium.vdev} has ${medium.params}, by dom0's QEMU`);
  }
}

/** Over QMP, in a conversation each. */
export class QmpCdBackend implements CdBackend {
  constructor(
    private readonly context: Context,
    private readonly domid: number,
    private readonly talk: typeof withBackendQemu<void> = withBackendQemu,
  ) {}

  serve({ id, vdev, params }: Medium): Promise<void> {
    const { clock, files } = this.context.platform;
    // No name is used twice, not by a helper that starts later either.
    const name = `${prefix(id)}${Math.floor(clock.now())}`;
    return this.talk(this.context, this.domid, async (qmp) => {
      await qmp.execute("blockdev-add", blockNode(name, params, files));
      try {
        await qmp.execute("device_add", { driver: "xen-cdrom", id: name, vdev, drive: name });
      } catch (error) {
        await qmp.execute("blockdev-del", { "node-name": name });
        throw error;
      }
    });
  }

  release(id: number): Promise<void> {
    const deleted = new DeletedDevices(this.context.platform.clock);
    return this.talk(
      this.context,
      this.domid,
      async (qmp) => {
        const query = ["query-named-block-nodes", { flat: true }, deadline, longAnswer] as const;
        for (const name of nodesOf(id, await qmp.execute(...query))) {
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
 * read, and not locked, since it may be in other drives as well.
 */
export function blockNode(name: string, params: string, files: Pick<FileSystem, "status">): JsonObject {
  const [, format = "", filename = ""] = /^([^:]*):(.*)$/s.exec(params) ?? ["", "aio", params];
  const driver = format === "aio" ? "raw" : format === "vhd" ? "vpc" : format;
  const kind = files.status(filename).kind === "block" ? "host_device" : "file";
  const file = { driver: kind, filename, "read-only": true, locking: "off" };
  return { "node-name": name, driver, "read-only": true, file };
}
