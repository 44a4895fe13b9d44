/**
 * The guest's screen in dom0's VNC server, from the first look on.
 *
 * QEMU opens its VNC server when it starts. The screen of a stub domain comes later, and QEMU from version 9.1
 * on does not show one that does ("This VM has no graphic display device.") until a viewer types Ctrl-Alt-1,
 * "show the first console". So the helper is that viewer, once for each stub domain: it hands QEMU one end of a
 * socket pair over QMP (`add_client`), which needs no address and no password, and types.
 */
import { concatBytes } from "../bytes/bytes.ts";
import type { Logger } from "../log/logger.ts";
import type { Platform, Timer } from "../platform/port.ts";
import { type ByteStream, DescriptorStream } from "../platform/stream.ts";
import { RfbClosed } from "../screen/errors.ts";
import {
  checkVersion,
  clientInit,
  decodeServerInit,
  keyEvent,
  protocolVersion,
  securityNone,
  sizes,
  updateRequest,
} from "../screen/rfb.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { Looks } from "../xenstore/looks.ts";
import type { BackendQemu } from "./backend-qemu.ts";
import { NodeWatch } from "./xenstore.ts";

/**
 * Control, Alt and 1: QEMU's number of each, and its keysym. With a layout (`keymap=`, `-k`) QEMU goes by the
 * keysym alone (`ext_key_event`, ui/vnc.c), without one by the number.
 */
const chord = [
  { key: 0x1d, keysym: 0xffe3 },
  { key: 0x38, keysym: 0xffe9 },
  { key: 0x02, keysym: 0x31 },
];
/** How long dom0's VNC server may take for the conversation, in milliseconds. */
const deadline = 10_000;
/** What did not work is tried again, ever more seldom, in milliseconds. */
const retry = { first: 2_000, last: 60_000 };
/** xenbus' "connected", which QEMU writes once it has the screen. */
const connected = "4";

interface Context {
  readonly platform: Platform;
  readonly xenstore: XenstoreClient;
  readonly log: Logger;
}

/** Follows the screen of one stub domain. */
export class ScreenWatch {
  readonly #node: string;
  readonly #watch = new NodeWatch();
  readonly #looks = new Looks(() => this.#look().catch((error: unknown) => this.#failed(error)));
  #shown = false;
  #retry: Timer | undefined;
  #pause = retry.first / 2;

  constructor(
    private readonly context: Context,
    private readonly domid: number,
    qemu: Pick<BackendQemu, "talk">,
    private readonly select = () => selectScreen(context, qemu),
  ) {
    this.#node = `/local/domain/0/backend/vfb/${domid}/0/state`;
  }

  start(): Promise<void> {
    return this.#watch.set(this.context.xenstore, this.#node, () => {
      // A screen that comes and goes is no reason to try more often.
      if (this.#retry === undefined) void this.#looks.take();
    });
  }

  /** Idempotent. */
  stop(): void {
    this.#watch.stop();
    this.#retry?.cancel();
  }

  async #look(): Promise<void> {
    const { xenstore, log } = this.context;
    // Once is enough: QEMU goes on showing what was chosen.
    if (this.#watch.stopped || this.#shown || this.#retry !== undefined) return;
    if ((await xenstore.tryReadText(this.#node)) !== connected) return;
    await this.select();
    this.#shown = true;
    log.info({}, `domain ${this.domid}: dom0's VNC server shows its guest's screen`);
  }

  #failed(error: unknown): void {
    if (this.#watch.stopped) return;
    this.#pause = Math.min(2 * this.#pause, retry.last);
    this.context.log.warn(
      {},
      `domain ${this.domid}: dom0's VNC server may show no screen until a viewer types Ctrl-Alt-1: ${String(error)}; the next try is in ${this.#pause / 1000} s`,
    );
    this.#retry = this.context.platform.clock.setTimer(this.#pause, () => {
      this.#retry = undefined;
      void this.#looks.take();
    });
  }
}

/** @throws QmpError, ScreenError, SystemError */
function selectScreen(context: Context, qemu: Pick<BackendQemu, "talk">): Promise<void> {
  const { clock, descriptors, sockets } = context.platform;
  return qemu.talk(async (qmp) => {
    const [ours, theirs] = sockets.socketPair();
    const viewer = new DescriptorStream(descriptors, ours, "dom0's VNC server");
    const timer = clock.setTimer(deadline, () => viewer.close());
    try {
      await qmp.executeWith(theirs, "getfd", { fdname: "screen" });
      await qmp.execute("add_client", { protocol: "vnc", fdname: "screen", skipauth: true });
      await typeChord(viewer);
    } finally {
      timer.cancel();
      descriptors.close(theirs);
      viewer.close();
    }
  });
}

/**
 * Types Ctrl-Alt-1 as a viewer of RFB 3.8, and waits until it has been read: a connection that ends too early
 * ends with what it has sent.
 *
 * @throws RfbError, RfbClosed
 */
export async function typeChord(server: ByteStream): Promise<void> {
  let rest: Uint8Array = new Uint8Array();
  const take = async (size: number): Promise<Uint8Array> => {
    while (rest.length < size) {
      const chunk = await server.read();
      if (chunk === null) throw new RfbClosed("dom0's VNC server ended the conversation, or did not answer");
      rest = concatBytes([rest, chunk]);
    }
    const bytes = rest.subarray(0, size);
    rest = rest.subarray(size);
    return bytes;
  };
  checkVersion(await take(sizes.version));
  await server.write(protocolVersion);
  const [count = 0] = await take(1);
  await take(count);
  await server.write(Uint8Array.of(securityNone));
  await take(sizes.securityResult);
  await server.write(clientInit);
  await take(decodeServerInit(await take(sizes.serverInit)).nameLength);
  const pressed = chord.map(({ key, keysym }) => keyEvent(key, true, keysym));
  const released = chord.toReversed().map(({ key, keysym }) => keyEvent(key, false, keysym));
  // No encoding is announced, so the server says nothing that it is not asked for.
  await server.write(concatBytes([...pressed, ...released, updateRequest({ width: 1, height: 1 }, false)]));
  await take(1);
}
