import { BlockFrontend } from "../frontends/block.ts";
import { KernelEvents } from "../frontends/kernel-events.ts";
import { waitForFrontends } from "../frontends/wait.ts";
import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import type { StateContext } from "./context.ts";
import { DescriptorStore } from "./descriptor-store.ts";
import { TransferError } from "./errors.ts";
import { blockSize } from "./format.ts";
import { HelperAbsent, type HelperLink } from "./helper-link.ts";
import { type Ask, stateDevice } from "./protocol.ts";

/** How long the disk may take to appear, and to become larger, after dom0 said that it is there. */
const deviceDeadline = 10_000;
/** For one read or write of at most a chunk: twice what Linux gives a disk of its own. */
const storeDeadline = 60_000;
/** For dom0 to take the disk back: it gives the stub domain 5 s for that. */
const releaseDeadline = 30_000;

const device = `/dev/${stateDevice.name}`;

/**
 * Waits until the disk's device is there, or is not. The kernel's own events say so: xenstore would be asked a
 * dozen times for the same, and each time costs more than a chunk of state.
 *
 * @returns false when it does not come to that in time
 */
function deviceIs(platform: Platform, there: boolean): Promise<boolean> {
  const { clock, files } = platform;
  return new Promise((resolve) => {
    const look = () => {
      if (files.exists(device) === there) settle(true);
    };
    const events = new KernelEvents(platform, look);
    const late = clock.setTimer(deviceDeadline, () => settle(false));
    const settle = (came: boolean) => {
      late.cancel();
      events.close();
      resolve(came);
    };
    events.open();
    look();
  });
}

/** @throws TransferError with where both sides stand */
async function appeared(
  { platform, xenstore }: Pick<StateContext, "platform" | "xenstore">,
  attached: { readonly device: number },
): Promise<void> {
  if (attached.device !== stateDevice.number) {
    throw new TransferError(`dom0 attached vbd ${attached.device}, expected was ${stateDevice.number}`);
  }
  if (await deviceIs(platform, true)) return;
  const frontend = await BlockFrontend.read(xenstore, attached.device);
  const [outcome] = await waitForFrontends(xenstore, platform, [frontend], 0);
  throw new TransferError(outcome?.connected === false ? outcome.error.message : `${device} did not appear`);
}

/** The state disk as the stub domain sees it: opened for direct I/O, grown through the helper. */
export class StateDisk {
  private constructor(
    private readonly platform: Platform,
    private readonly helper: HelperLink,
    readonly store: DescriptorStore,
  ) {}

  /**
   * Asks for a disk and opens it.
   *
   * @throws TransferError when the helper refuses, or the device that it attached does not appear; HelperAbsent
   */
  static async attach(
    context: Pick<StateContext, "platform" | "xenstore" | "log">,
    helper: HelperLink,
    ask: Ask & { readonly verb: "save" | "restore" },
  ): Promise<StateDisk> {
    const { platform, log } = context;
    // The kernel takes one down in its own time, and would take a new one in its place for the old one.
    if (!(await deviceIs(platform, false))) {
      // A helper that was stuck may have attached it when nobody waited any more.
      await release(helper, log);
      if (!(await deviceIs(platform, false))) {
        const remedy = "start or restart dom0's helper: stubdom dom0 serve";
        throw new TransferError(`${device} of an earlier transfer stays; ${remedy}`);
      }
    }
    try {
      await appeared(context, await helper.ask(ask, "attached"));
      // Past the page cache: a stub domain has no memory to spare, and what is written must be dom0's at once.
      const access = ask.verb === "save" ? "read-write" : "read";
      const fd = platform.descriptors.open(device, { access, direct: true });
      const store = new DescriptorStore(platform, fd, {
        enlarge: (size) => disk.#grow(size),
        transient: true,
        deadline: storeDeadline,
      });
      const disk: StateDisk = new StateDisk(platform, helper, store);
      return disk;
    } catch (error) {
      if (!(error instanceof HelperAbsent)) await release(helper, log);
      throw error;
    }
  }

  /** Idempotent. */
  close(): void {
    this.store.close();
  }

  /**
   * Asks dom0 for a larger disk and waits until the kernel has it: xen-blkback notices the new size when it
   * has served a request, so one is made; blkfront then announces the change.
   *
   * @throws TransferError
   */
  async #grow(size: number): Promise<void> {
    const { bytes } = await this.helper.ask({ verb: "grow", bytes: size }, "grown");
    const { clock, storage } = this.platform;
    const { store } = this;
    await new Promise<void>((resolve, reject) => {
      let settled = false;
      const look = () => {
        if (settled) return;
        if (store.closed) settle(() => reject(new TransferError("the state disk was closed while it grew")));
        else if (store.size >= bytes) settle(resolve);
      };
      const events = new KernelEvents(this.platform, look);
      const settle = (act: () => void) => {
        settled = true;
        late.cancel();
        events.close();
        act();
      };
      const late = clock.setTimer(deviceDeadline, () => {
        const text = `dom0 enlarged the state disk to ${bytes} bytes, which never showed here; see the kernels' messages`;
        settle(() => reject(new TransferError(text)));
      });
      events.open();
      store.read(0, storage.buffer(blockSize)).then(look, (error) => settle(() => reject(error)));
    });
  }
}

/** Gives the disk back; a helper that has gone takes it down by itself. */
export async function release(helper: HelperLink, log: Logger): Promise<void> {
  try {
    await helper.ask({ verb: "release" }, "released", releaseDeadline);
  } catch (error) {
    log.warn({ error: String(error) }, `state disk: dom0 was not told that it is free: ${String(error)}`);
  }
}
