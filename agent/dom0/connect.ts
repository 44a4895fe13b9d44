import { type Platform, SystemError } from "../platform/port.ts";

/** How long a listener that takes no more is tried again, and how often, in milliseconds. */
const patience = 5_000;
const interval = 20;

/** A listener had no room for one more connection, all the time. */
export class ListenerBusy extends Error {
  override readonly name = "ListenerBusy";
}

/**
 * Connects to a unix socket of dom0's. Where as many wait already as the listener lets wait, which are two at xenstored and
 * at QEMU, a connect that does not block is refused with EAGAIN: it is tried again.
 *
 * @throws ListenerBusy, SystemError
 */
export async function connectPatiently(
  { clock, sockets }: Pick<Platform, "clock" | "sockets">,
  path: string,
): Promise<number> {
  const end = clock.now() + patience;
  for (;;) {
    try {
      return sockets.connectUnix(path);
    } catch (error) {
      if (!(error instanceof SystemError && error.code === "EAGAIN")) throw error;
      if (clock.now() >= end)
        throw new ListenerBusy(
          `connect ${path}: ${error.code} for ${patience / 1000} s, others wait there as well; see whether what listens there is stuck, and try again`,
        );
    }
    await new Promise<void>((resolve) => clock.setTimer(interval, resolve));
  }
}
