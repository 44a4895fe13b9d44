import type { Platform } from "../platform/port.ts";

/** The longest event of the kernel's (lib/kobject_uevent.c, UEVENT_BUFFER_SIZE); what is longer is cut. */
const longestEvent = 2048;
/** Events that are taken off the socket in one turn of the event loop. */
const mostAtOnce = 64;

/**
 * The kernel's word that some device came or went (NETLINK_KOBJECT_UEVENT), sent once its node is in /dev and
 * its attributes are in sysfs. A hint and no more, for which nothing of it is read: whoever waits looks
 * again, so that neither one that was dropped nor a forged one does harm.
 */
export class KernelEvents {
  #fd: number | undefined;

  constructor(
    private readonly platform: Pick<Platform, "descriptors" | "sockets">,
    /** Called once for any number of events that have come together. */
    private readonly happened: () => void,
  ) {}

  /** Idempotent. Nothing tells what has happened before: look once more after it. */
  open(): void {
    if (this.#fd !== undefined) return;
    const { descriptors, sockets } = this.platform;
    const fd = sockets.kernelEvents();
    this.#fd = fd;
    const event = new Uint8Array(longestEvent);
    descriptors.onReadable(fd, () => {
      for (let taken = 0; taken < mostAtOnce && descriptors.read(fd, event) !== null; taken++);
      this.happened();
    });
  }

  /** Idempotent. */
  close(): void {
    if (this.#fd === undefined) return;
    this.platform.descriptors.onReadable(this.#fd, null);
    this.platform.descriptors.close(this.#fd);
    this.#fd = undefined;
  }
}
