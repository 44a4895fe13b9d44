import type { Logger } from "../log/logger.ts";
import type { Platform, Timer } from "../platform/port.ts";
import { guestUuid } from "../savestate/context.ts";
import { StateError, TransferError } from "../savestate/errors.ts";
import { extentSize, firstExtent } from "../savestate/format.ts";
import { type Reply, type Request, stateDevice } from "../savestate/protocol.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { attachDisk, detachDisk } from "./attachment.ts";
import type { Backing, BackingPool } from "./backing.ts";
import { LogBudget } from "./log-budget.ts";
import { type HelperSettings, savePath } from "./settings.ts";
import { loadState, placeState } from "./transfer.ts";

export interface HelperContext {
  readonly platform: Platform;
  readonly xenstore: XenstoreClient;
  readonly log: Logger;
  readonly settings: HelperSettings;
  readonly pool: BackingPool;
}

/** What `status` shows of one stub domain. */
export interface SessionStatus {
  readonly domid: number;
  readonly target: number;
  /** What the disk is there for; `idle` without one. */
  readonly use: "idle" | "save" | "restore";
  /** Of the disk, in bytes. */
  readonly bytes: number;
}

/**
 * The state disk of one stub domain: there is none, or one for saving, or one for restoring. Requests come
 * one at a time. Whatever fails, the disk goes and the request is refused.
 */
export class Session {
  #disk: { readonly backing: Backing; readonly use: "save" | "restore" } | undefined;
  #idle: Timer | undefined;
  #last: Promise<void> = Promise.resolve();
  readonly #budget: LogBudget;
  readonly #sparing: Pick<Logger, "warn"> = {
    warn: (about, text) => this.#tell("warn", about, text),
  };

  constructor(
    private readonly context: HelperContext,
    readonly domid: number,
    readonly target: number,
  ) {
    this.#budget = new LogBudget(context.platform.clock);
  }

  get status(): SessionStatus {
    const { domid, target } = this;
    return { domid, target, use: this.#disk?.use ?? "idle", bytes: this.#disk?.backing.size ?? 0 };
  }

  /** Never rejects. */
  carryOut(request: Request): Promise<Reply> {
    return this.#inTurn(() => this.#answer(request));
  }

  /** Takes the disk away, if there is one, after what is under way. Idempotent, never rejects. */
  close(): Promise<void> {
    return this.#inTurn(() => this.#drop());
  }

  /** One after the other: no descriptor is closed while a read or write on it is under way. */
  #inTurn<T>(act: () => Promise<T>): Promise<T> {
    const result = this.#last.then(act);
    this.#last = result.then(
      () => {},
      () => {},
    );
    return result;
  }

  async #answer(request: Request): Promise<Reply> {
    const { log, platform, settings } = this.context;
    const began = platform.clock.now();
    const name = `domain ${this.domid}: ${request.verb}`;
    // Who asks for no more than there is does not use the disk: it would keep others from one for as long as it lives.
    const uses = request.verb !== "grow" || request.bytes > this.status.bytes;
    if (uses) this.#idle?.cancel();
    try {
      const reply = await this.#carryOut(request);
      this.#tell(
        "info",
        { request },
        `${name}: ${words(reply)}, ${Math.round(platform.clock.now() - began)} ms`,
      );
      return reply;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      this.#tell("warn", { request }, `${name} failed: ${reason}`);
      await this.#drop();
      // What is no StateError names files of dom0, which are no business of a stub domain.
      return { outcome: "refused", reason: error instanceof StateError ? reason : "dom0's log says why" };
    } finally {
      if (uses && this.#disk !== undefined) {
        this.#idle = platform.clock.setTimer(settings.idleLimit, () => {
          log.warn({}, `domain ${this.domid}: its state disk was left unused: it is taken away`);
          void this.close();
        });
      }
    }
  }

  #tell(level: "info" | "warn", about: object, text: string): void {
    const { log } = this.context;
    const left = this.#budget.take();
    log[left === "none" ? "debug" : level](about, text);
    if (left === "last")
      log.warn(
        {},
        `domain ${this.domid} asks so often that only one request a minute is logged from here on`,
      );
  }

  async #drop(): Promise<void> {
    this.#idle?.cancel();
    const disk = this.#disk;
    this.#disk = undefined;
    if (disk === undefined) return;
    try {
      await detachDisk(this.context.xenstore, this.domid, this.#sparing);
    } catch (error) {
      this.context.log.error({}, `domain ${this.domid}: state disk not detached: ${String(error)}`);
    } finally {
      disk.backing.close();
    }
  }

  async #carryOut(request: Request): Promise<Reply> {
    switch (request.verb) {
      case "save":
        // Before another is made: it may be all the room there is.
        await this.#drop();
        return this.#attach("save", await this.context.pool.make(Math.max(request.bytes, firstExtent)));
      case "restore":
        return this.#restore();
      case "grow":
        return { outcome: "grown", bytes: this.#diskFor("save").grow(request.bytes) };
      case "commit":
        return this.#commit(request.bytes);
      case "release":
        await this.#drop();
        return { outcome: "released" };
    }
  }

  async #attach(use: "save" | "restore", backing: Backing): Promise<Reply> {
    const { xenstore } = this.context;
    // One that an earlier helper left behind.
    try {
      await detachDisk(xenstore, this.domid, this.#sparing);
      this.#disk = { backing, use };
    } catch (error) {
      backing.close();
      throw error;
    }
    await attachDisk(xenstore, this.domid, backing, use === "save" ? "w" : "r");
    return { outcome: "attached", device: stateDevice.number, bytes: backing.size };
  }

  async #restore(): Promise<Reply> {
    const { platform, settings, pool, xenstore } = this.context;
    const uuid = await guestUuid(xenstore, this.target);
    await this.#drop();
    let backing: Backing | undefined;
    try {
      await loadState(platform, settings, this.target, uuid, async (bytes) => {
        backing = await pool.make(firstExtent + extentSize(bytes));
        return backing.store;
      });
    } catch (error) {
      backing?.close();
      throw error;
    }
    if (backing === undefined) throw new TransferError("no state was loaded");
    return this.#attach("restore", backing);
  }

  async #commit(bytes: number): Promise<Reply> {
    const { platform, settings, pool, xenstore } = this.context;
    const { store } = this.#diskFor("save");
    // Detached first: what is verified then cannot change any more.
    await detachDisk(xenstore, this.domid, this.#sparing);
    const placed = await placeState(platform, settings, pool, store, this.target, bytes);
    await this.#drop();
    // libxl removes a dead guest's file once, after its nodes: what came later is ours to remove.
    if (!(await serves(xenstore, this.domid, this.target))) {
      platform.files.remove(savePath(settings, this.target));
      throw new TransferError("the guest is gone");
    }
    return { outcome: "placed", bytes: placed };
  }

  #diskFor(use: "save" | "restore"): Backing {
    if (this.#disk?.use === use) return this.#disk.backing;
    throw new TransferError(`there is no disk to ${use} with; the helper may have been restarted`);
  }
}

/** Whether `domid` is the stub domain of `target`, by nodes that dom0 alone can write. */
export async function serves(xenstore: XenstoreClient, domid: number, target: number): Promise<boolean> {
  const [claimed, known] = await Promise.all([
    xenstore.tryReadText(`/local/domain/${domid}/target`),
    xenstore.tryReadText(`/local/domain/${target}/image/device-model-domid`),
  ]);
  return claimed === String(target) && known === String(domid);
}

function words(reply: Reply): string {
  return Object.values(reply).join(" ");
}
