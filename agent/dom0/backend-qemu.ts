import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import { SocketStream } from "../platform/stream.ts";
import { QmpClient, type QmpEvent } from "../qmp/client.ts";
import { connectPatiently } from "./connect.ts";

/**
 * How long the greeting may take, in milliseconds: whoever else talks to QEMU is waited for, and libxl gives a CD drive
 * 40 s.
 */
const deadline = 35_000;

interface Context {
  readonly platform: Pick<Platform, "clock" | "descriptors" | "sockets">;
  readonly log: Logger;
}

/** The QEMU in dom0 that is the backend of one stub domain's own screen and image files. */
export class BackendQemu {
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    private readonly context: Context,
    private readonly domid: number,
  ) {}

  /**
   * A conversation over QMP, after those that were asked for before. It ends with `body`.
   *
   * @throws ListenerBusy, QmpError, SystemError; what `body` throws
   */
  talk<T>(body: (qmp: QmpClient) => Promise<T>, onEvent: (event: QmpEvent) => void = () => {}): Promise<T> {
    const result = this.#last.then(() => this.#converse(body, onEvent));
    this.#last = result.catch(() => {});
    return result;
  }

  async #converse<T>(body: (qmp: QmpClient) => Promise<T>, onEvent: (event: QmpEvent) => void): Promise<T> {
    const { platform, log } = this.context;
    // Not libxl's own. This one has other users too (xentop), and both take one client at a time.
    const path = `/var/run/xen/qmp-libxenstat-${this.domid}`;
    const stream = new SocketStream(platform, await connectPatiently(platform, path), path);
    const qmp = new QmpClient(stream, { clock: platform.clock, log, onEvent });
    try {
      await qmp.handshake(deadline);
      return await body(qmp);
    } finally {
      qmp.close();
    }
  }
}
