import { type Platform, SystemError } from "../platform/port.ts";
import { DescriptorStream } from "../platform/stream.ts";
import { type Watch, XenstoreClient } from "../xenstore/client.ts";
import { connectPatiently } from "./connect.ts";

/** Where xenstored listens in its own domain. */
export const xenstoredSocket = "/run/xenstored/socket";

/**
 * xenstore from dom0: xenstored's own socket, or the kernel's device where xenstored runs in another domain. The
 * device's way leads through Xen, and takes several times as long even where both ends are in dom0.
 *
 * @param socket xenstored's socket; no other way is tried then
 * @throws ListenerBusy, SystemError
 */
export async function connectXenstore(platform: Platform, socket?: string): Promise<XenstoreClient> {
  const path = socket ?? xenstoredSocket;
  try {
    const fd = await connectPatiently(platform, path);
    return new XenstoreClient(new DescriptorStream(platform.descriptors, fd, path), platform.clock);
  } catch (error) {
    const none = error instanceof SystemError && (error.code === "ENOENT" || error.code === "ECONNREFUSED");
    if (socket !== undefined || !none) throw error;
    return XenstoreClient.connect(platform);
  }
}

/**
 * Digits alone are a number, as xl has it, also where some domain has them for its name.
 *
 * @throws RangeError when there is no such domain
 */
export async function findDomain(xenstore: XenstoreClient, nameOrNumber: string): Promise<number> {
  const domids = (await xenstore.directory("/local/domain")).map(Number);
  const name = (domid: number) => xenstore.tryReadText(`/local/domain/${domid}/name`);
  const index = /^\d+$/.test(nameOrNumber)
    ? domids.indexOf(Number(nameOrNumber))
    : (await Promise.all(domids.map(name))).indexOf(nameOrNumber);
  const found = domids[index];
  if (found !== undefined) return found;
  throw new RangeError(`no domain ${nameOrNumber}; \`xl list\` shows what there is`);
}

/** A watch that may be stopped while it is still being set. */
export class NodeWatch {
  #watch: Watch | undefined;
  #stopped = false;

  get stopped(): boolean {
    return this.#stopped;
  }

  /** To be called once. Throws {@link XenstoreFailure}. */
  async set(xenstore: XenstoreClient, path: string, event: (path: string) => void): Promise<void> {
    const watch = await xenstore.watch(path, (at) => {
      if (!this.#stopped) event(at);
    });
    if (this.#stopped) void watch.stop().catch(() => {});
    else this.#watch = watch;
  }

  /** Idempotent. */
  stop(): void {
    this.#stopped = true;
    void this.#watch?.stop().catch(() => {});
    this.#watch = undefined;
  }
}
