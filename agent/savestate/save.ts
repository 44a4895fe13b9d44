import { isJsonObject, type JsonObject } from "../qmp/json.ts";
import type { CommandHandler } from "../qmp/proxy.ts";
import { SaveConsole } from "./console.ts";
import { guestUuid, type StateContext } from "./context.ts";
import { DiskWriter } from "./disk.ts";
import { TransferError, withRemedy } from "./errors.ts";
import { ExtentWriter } from "./extent.ts";
import { defaultChunkSize } from "./format.ts";
import { HelperAbsent, HelperLink } from "./helper-link.ts";
import { type Keeper, whyKept } from "./keepers.ts";
import { type Qmp, type StateSink, saveThroughFifo } from "./qemu-output.ts";
import { release, StateDisk } from "./state-disk.ts";

/** What the disk is made for at first; it grows with what QEMU writes. */
const expectedState = 1024 * 1024;
/** What dom0 gets over a console, where nobody else sets a limit: the largest disk, as the helper is by default. */
const largestOverConsole = 256 * 1024 * 1024;

/** Whom a save concerns beside QEMU. */
export interface SaveOptions {
  /** Asked before anything else is done. */
  readonly keepers?: readonly Keeper[];
  /** Gets why a save has failed: thing, value, remedy. The log does where there is none. */
  complain?(text: string): void;
  /** Gets the same once a later one has not. */
  withdraw?(text: string): void;
  /** Bytes. */
  readonly mostOverConsole?: number;
}

/**
 * The agent's `xen-save-devices-state`: carries the command out in QEMU's place, whatever file name the
 * toolstack gave. It is answered only when the state lies where libxl reads it next.
 *
 * The state goes over a disk that dom0's helper attaches, or, where no helper answers, over console 1. Both
 * are told in the log. A failure, or a keeper's refusal, is the answer and a complaint; the guest can go on.
 */
export class StateSaver {
  /** The command for the QMP proxy's table. */
  readonly handler: CommandHandler = (args) => this.#once(args);
  readonly #helper: HelperLink;
  #busy = false;
  /**
   * dom0's QEMU holds its file behind console 1 open and appends to it. Once the console was used, the helper
   * has put another file in its place, or libxl has removed it, which it does after each failure, what goes
   * over the console does not reach libxl any more.
   */
  #consoleSpent = false;
  /** What was told of the last save, if it has failed. */
  #complaint: string | undefined;

  constructor(
    private readonly context: StateContext,
    private readonly qmp: Qmp,
    private readonly options: SaveOptions = {},
  ) {
    const { xenstore, platform, log, domid, target } = context;
    this.#helper = new HelperLink(xenstore, platform.clock, log, domid, target);
  }

  async #once(args: JsonObject) {
    if (this.#busy) throw new TransferError("a state is being saved already");
    this.#busy = true;
    try {
      const why = await whyKept(this.options.keepers ?? []);
      if (why !== undefined) throw new TransferError(why);
      await this.#save(args);
      this.#tell(undefined);
      return {};
    } catch (error) {
      this.#consoleSpent = true;
      this.#tell(`save: failed: ${withRemedy(error, "see the lines above and those of dom0's helper")}`);
      throw error;
    } finally {
      this.#busy = false;
      this.#helper.close();
    }
  }

  /** What is the matter, in place of what was before. */
  #tell(complaint: string | undefined): void {
    const before = this.#complaint;
    this.#complaint = complaint;
    const { complain = (text) => this.context.log.error({}, text), withdraw } = this.options;
    if (complaint !== undefined) complain(complaint);
    if (before !== undefined && before !== complaint) withdraw?.(before);
  }

  async #save({ filename: _, ...args }: JsonObject): Promise<void> {
    const { clock } = this.context.platform;
    const began = clock.now();
    const done = (bytes: number, way: string) => {
      const seconds = ((clock.now() - began) / 1000).toFixed(2);
      this.context.log.info({ bytes }, `save: ${bytes} bytes of device state over ${way} in ${seconds} s`);
    };
    if (await this.#helper.present()) {
      try {
        done(await this.#overDisk(args), "the state disk");
        return;
      } catch (error) {
        if (!(error instanceof HelperAbsent)) throw error;
        this.context.log.warn({}, `save: ${error.message}: state goes over console 1`);
      }
    }
    done(await this.#overConsole(args), "console 1");
  }

  /** @throws HelperAbsent before QEMU has been asked for anything */
  async #overDisk(args: JsonObject): Promise<number> {
    const { platform, log } = this.context;
    const meta = this.#meta();
    // Awaited below; until then nobody hears it fail.
    meta.catch(() => {});
    const disk = await StateDisk.attach(this.context, this.#helper, { verb: "save", bytes: expectedState });
    try {
      const writer = await DiskWriter.begin(disk.store, await meta, platform.storage.hash);
      await saveThroughFifo(platform, this.qmp, args, writer);
      const { commit } = await writer.commit();
      disk.close();
      const placed = await this.#helper.ask({ verb: "commit", bytes: commit.length }, "placed");
      this.#consoleSpent = true;
      if (placed.bytes !== commit.length) {
        throw new TransferError(`dom0 placed ${placed.bytes} bytes, ${commit.length} were written`);
      }
      return commit.length;
    } catch (error) {
      disk.close();
      await release(this.#helper, log);
      throw error;
    }
  }

  async #overConsole(args: JsonObject): Promise<number> {
    if (this.#consoleSpent) {
      const why = "console 1 serves one attempt in the life of a stub domain, and there has been one";
      throw new TransferError(`${why}; start dom0's helper: stubdom dom0 serve`);
    }
    this.#consoleSpent = true;
    const { platform, xenstore } = this.context;
    const header = { ...(await this.#meta()), chunkSize: defaultChunkSize, sequence: 1 };
    const console = await SaveConsole.open(platform, xenstore);
    try {
      const writer = new ExtentWriter(console, header, platform.storage.hash, platform.storage.buffer);
      await saveThroughFifo(
        platform,
        this.qmp,
        args,
        limited(writer, this.options.mostOverConsole ?? largestOverConsole),
      );
      const { commit } = await writer.finish();
      await console.drain();
      return commit.length;
    } finally {
      console.close();
    }
  }

  async #meta() {
    const { xenstore, target } = this.context;
    const [uuid, qemuVersion] = await Promise.all([guestUuid(xenstore, target), this.#qemuVersion()]);
    return { uuid, qemuVersion };
  }

  async #qemuVersion(): Promise<string> {
    const answer = await this.qmp.execute("query-version");
    if (!isJsonObject(answer) || !isJsonObject(answer.qemu)) return "";
    const { major, minor, micro } = answer.qemu;
    const package_ = typeof answer.package === "string" ? answer.package.trim() : "";
    return [major, minor, micro].map(String).join(".") + (package_ === "" ? "" : ` ${package_}`);
  }
}

/** A QEMU that writes without end is stopped here. One that was taken over may open the console by itself. */
function limited(sink: StateSink, most: number): StateSink {
  let passed = 0;
  return {
    get room() {
      return sink.room;
    },
    async filled(count) {
      passed += count;
      if (passed > most) throw new TransferError(`QEMU wrote more than ${most} bytes of state`);
      await sink.filled(count);
    },
  };
}
