import { BlockFrontend } from "../frontends/block.ts";
import { KernelEvents } from "../frontends/kernel-events.ts";
import { waitForFrontends } from "../frontends/wait.ts";
import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { DescriptorStore } from "./descriptor-store.ts";
import { TransferError } from "./errors.ts";
import { blockSize } from "./format.ts";
import type { HelperLink } from "./helper-link.ts";
import { stateDevice } from "./protocol.ts";

/** How long the disk may take to appear, and to become larger, after dom0 said that it is there. */
const deviceDeadline = 10_000;

/** The state disk as the stub domain sees it: opened for direct I/O, grown through the helper. */
export class StateDisk {
  private constructor(
    private readonly platform: Platform,
    private readonly helper: HelperLink,
    readonly store: DescriptorStore,
  ) {}

  /** @throws TransferError when the device that dom0 has attached does not appear */
  static async open(
    platform: Platform,
    xenstore: XenstoreClient,
    helper: HelperLink,
    access: "read" | "read-write",
    attached: { readonly device: number },
  ): Promise<StateDisk> {
    if (attached.device !== stateDevice.number) {
      throw new TransferError(`dom0 attached vbd ${attached.device}, expected was ${stateDevice.number}`);
    }
    const frontend = await BlockFrontend.read(xenstore, attached.device);
    const [outcome] = await waitForFrontends(xenstore, platform, [frontend], deviceDeadline);
    if (outcome === undefined || !outcome.connected) {
      throw new TransferError(outcome?.error.message ?? "the state disk did not appear");
    }
    // Past the page cache: a stub domain has no memory to spare, and what is written must be dom0's at once.
    const fd = platform.descriptors.open(frontend.device, { access, direct: true });
    const store = new DescriptorStore(platform, fd, (size) => disk.#grow(size));
    const disk: StateDisk = new StateDisk(platform, helper, store);
    return disk;
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
    const { clock, descriptors, storage } = this.platform;
    const { fd } = this.store;
    await new Promise<void>((resolve, reject) => {
      let settled = false;
      const look = () => {
        if (!settled && descriptors.size(fd) >= bytes) settle(resolve);
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
      storage.readAt(fd, storage.buffer(blockSize), 0).then(look, (error) => settle(() => reject(error)));
    });
  }
}

/** Gives the disk back; a helper that has gone takes it down by itself. */
export async function release(helper: HelperLink, log: Logger): Promise<void> {
  try {
    await helper.ask({ verb: "release" }, "released");
  } catch (error) {
    log.warn({ error: String(error) }, `state disk: dom0 was not told that it is free: ${String(error)}`);
  }
}
