import { SystemError } from "../platform/port.ts";
import { DescriptorStream } from "../platform/stream.ts";
import { BareStream } from "./bare-stream.ts";
import { RestoreConsole } from "./console.ts";
import { guestUuid, type StateContext } from "./context.ts";
import { type DiskReader, isRawQemu, openDisk } from "./disk.ts";
import { StateError, StateFormatError, TransferError, withRemedy } from "./errors.ts";
import { ExtentReader } from "./extent.ts";
import { checkGuest, pieceAt } from "./format.ts";
import { HelperAbsent, HelperLink } from "./helper-link.ts";
import { release, StateDisk } from "./state-disk.ts";

/** How much of console 2 tells what comes over it. */
const magicSize = 8;

/** The state that QEMU starts from, on its way. */
export interface Incoming {
  /**
   * QEMU's end of a pipe: to be handed to QEMU as descriptor n, together with `-incoming fd:n`, and closed
   * here by whoever spawns QEMU.
   */
  readonly descriptor: number;
  /**
   * Feeds QEMU, which must have been started. Resolves when QEMU has got all of it.
   *
   * @param ended asked where QEMU closes its end too early: how it has ended, `null` where it lives on
   * @throws what `ended` gave, or StateError: QEMU must not be left running then, it may have got a part
   */
  feed(ended: () => Promise<Error | null>): Promise<void>;
  /** To be called when QEMU runs, or will not: ends what is left. Idempotent. */
  close(): void;
}

/**
 * Opens the state of a guest that is being restored. From a state disk, all of it has been verified when
 * this resolves; from console 2, each part is verified before QEMU gets it.
 *
 * @throws StateError when it is refused: the guest must not be started
 */
export async function openIncoming(context: StateContext): Promise<Incoming> {
  const incoming = await tellingRemedy(open(context));
  return { ...incoming, feed: (ended) => tellingRemedy(incoming.feed(ended)) };
}

/** What the state's errors, which say what is wrong and where, have no word of. */
async function tellingRemedy<T>(work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (!(error instanceof StateError)) throw error;
    const remedy = "the guest is not started with it: restore it from another file, and see dom0's helper";
    throw new TransferError(withRemedy(error, remedy));
  }
}

async function open(context: StateContext): Promise<Incoming> {
  const { xenstore, platform, log, domid, target } = context;
  const helper = new HelperLink(xenstore, platform.clock, log, domid, target);
  if (await helper.present()) {
    try {
      return await overDisk(context, helper);
    } catch (error) {
      if (!(error instanceof HelperAbsent)) throw error;
      log.warn({}, `restore: ${error.message}: state comes over console 2`);
    }
  }
  return overConsole(context);
}

async function overDisk(context: StateContext, helper: HelperLink): Promise<Incoming> {
  const { xenstore, platform, log, target } = context;
  const disk = await StateDisk.attach(context, helper, { verb: "restore" });
  try {
    const reader = await openDisk(disk.store, platform.storage.hash);
    const { header, commit } = await reader.read();
    checkGuest(header, reader.anchor.offset, await guestUuid(xenstore, target));
    log.info(
      { bytes: commit.length },
      `restore: ${commit.length} bytes of device state from the state disk, whole`,
    );
    return incomingFromDisk(context, helper, disk, reader);
  } catch (error) {
    disk.close();
    await release(helper, log);
    helper.close();
    throw error;
  }
}

function incomingFromDisk(
  { platform, log }: StateContext,
  helper: HelperLink,
  disk: StateDisk,
  reader: DiskReader,
): Incoming {
  const [descriptor, end] = platform.sockets.pipe();
  const qemu = new DescriptorStream(platform.descriptors, end, "QEMU's incoming state");
  let released = false;
  const close = () => {
    if (released) return;
    released = true;
    qemu.close();
    disk.close();
    void release(helper, log).then(() => helper.close());
  };
  return {
    descriptor,
    close,
    async feed(ended) {
      try {
        await reader.read(giving(qemu, ended));
      } finally {
        close();
      }
    },
  };
}

async function overConsole({ platform, xenstore, log, target }: StateContext): Promise<Incoming> {
  const console = await RestoreConsole.open(platform, xenstore);
  const [descriptor, end] = platform.sockets.pipe();
  const qemu = new DescriptorStream(platform.descriptors, end, "QEMU's incoming state");
  const close = () => {
    qemu.close();
    console.close();
  };
  return {
    descriptor,
    close,
    async feed(ended) {
      try {
        const give = giving(qemu, ended);
        const start = await console.peek(magicSize);
        const whole = (bytes: number) =>
          log.info({ bytes }, `restore: ${bytes} bytes of device state over console 2, whole`);
        if (pieceAt(start) === "header") {
          whole(await feedFramed(platform, console, give, await guestUuid(xenstore, target)));
        } else if (isRawQemu(start)) {
          whole(await feedBare(platform, console, give));
        } else if (start.length < magicSize) {
          throw new StateFormatError("incomplete", start.length, "console 2 gave no state");
        } else {
          throw new StateFormatError(
            "foreign",
            0,
            "neither a framed state nor QEMU's own came over console 2",
          );
        }
      } finally {
        close();
      }
    },
  };
}

async function feedFramed(
  platform: StateContext["platform"],
  console: RestoreConsole,
  give: Give,
  uuid: string,
): Promise<number> {
  const { hash, buffer } = platform.storage;
  const extent = new ExtentReader(console, 0, hash, buffer);
  checkGuest(await extent.header(), 0, uuid);
  for (let part = await extent.next(); ; part = await extent.next()) {
    if (part instanceof Uint8Array) await give(part);
    else return part.length;
  }
}

/** As a helper has put it into libxl's stream, with checksums behind it. */
async function feedBare(
  platform: StateContext["platform"],
  console: RestoreConsole,
  give: Give,
): Promise<number> {
  const state = new BareStream(platform.storage.hash, give);
  while (state.whole === undefined) {
    const part = await console.read();
    if (part === null) state.finish();
    else await state.add(part);
  }
  return state.whole;
}

/** Gives a part to QEMU. */
type Give = (part: Uint8Array) => Promise<void>;

/** A QEMU that does not take the state closes its end, and says why as it ends. */
function giving(qemu: DescriptorStream, ended: () => Promise<Error | null>): Give {
  return async (part) => {
    try {
      await qemu.write(part);
    } catch (error) {
      if (!(error instanceof SystemError) || error.code !== "EPIPE") throw error;
      throw (await ended()) ?? new TransferError("QEMU closed its end before it had the whole state");
    }
  };
}
