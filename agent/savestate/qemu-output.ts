import type { Platform, Timer } from "../platform/port.ts";
import type { QmpClient } from "../qmp/client.ts";
import type { JsonObject } from "../qmp/json.ts";
import { isRawQemu } from "./disk.ts";
import { TransferError } from "./errors.ts";

/** Where QEMU writes its state: a name that it can open, truncate and write without knowing what it is. */
const fifo = "/run/state.fifo";
/** QEMU goes on while we are busy; with the chunks in memory it stays below 1 MiB. */
const pipeSize = 128 * 1024;
/** QEMU saves in one go; for so long without a byte, it hangs. */
const stallDeadline = 30_000;
/** For its answer, once it has nothing left to write, or nobody left to write to: it flushes the guest's disks before. */
const answerDeadline = 60_000;
/** The command as a whole; how far it has come is what {@link stallDeadline} is for. */
const commandDeadline = 600_000;

/** The agent's own connection to QEMU. */
export type Qmp = Pick<QmpClient, "execute">;

/** Takes bytes where it wants them: see ExtentWriter. */
export interface StateSink {
  readonly room: Uint8Array;
  /** Settles by itself, also where what is behind it never answers. */
  filled(count: number): Promise<void>;
}

/**
 * Lets QEMU save its state and passes every byte of it to `sink`.
 *
 * @param args of `xen-save-devices-state`, but for the file name
 * @throws QmpError when QEMU fails, TransferError when it hangs, or what `sink` throws; QEMU has answered by
 * then, unless it hangs
 */
export async function saveThroughFifo(
  platform: Platform,
  qmp: Qmp,
  args: JsonObject,
  sink: StateSink,
): Promise<void> {
  const { descriptors, files, storage } = platform;
  if (files.exists(fifo)) files.remove(fifo);
  files.makeFifo(fifo);
  const fd = descriptors.open(fifo, { access: "read", nonBlocking: true });
  const input = new FifoReader(platform, fd);
  try {
    storage.setPipeSize(fd, pipeSize);
    const command = qmp.execute("xen-save-devices-state", { ...args, filename: fifo }, commandDeadline);
    // A QEMU that fails before it opens the FIFO would leave the reader waiting.
    command.then(
      () => input.writerDone(),
      (error) => input.abandon(error),
    );
    let any: boolean;
    try {
      any = await input.passOn(sink);
    } catch (error) {
      // Without a reader, QEMU's write fails and its command ends: it must not be left in the middle.
      input.close();
      await answered(platform, command).catch(() => {});
      throw error;
    }
    await answered(platform, command);
    if (!any) throw new TransferError("QEMU says that it has saved its state, and wrote nothing");
  } finally {
    input.close();
    files.remove(fifo);
  }
}

/** The answer, or an error when there is none in {@link answerDeadline}: a later one concerns nobody. */
async function answered(platform: Platform, command: Promise<unknown>): Promise<void> {
  let late: Timer | undefined;
  const silence = new Promise<never>((_, reject) => {
    const seconds = answerDeadline / 1000;
    late = platform.clock.setTimer(answerDeadline, () =>
      reject(
        new TransferError(`QEMU has written its state, or given up, and has not said so for ${seconds} s`),
      ),
    );
  });
  try {
    await Promise.race([command, silence]);
  } finally {
    late?.cancel();
  }
}

class FifoReader {
  #open = true;
  #writerDone = false;
  #abandoned: unknown;
  #wake: ((error?: unknown) => void) | undefined;

  constructor(
    private readonly platform: Platform,
    private readonly fd: number,
  ) {}

  /** The writer has closed its end; what it wrote is still read. */
  writerDone(): void {
    this.#writerDone = true;
    this.#wake?.();
  }

  abandon(error: unknown): void {
    this.#abandoned = error;
    this.#wake?.(error);
  }

  /** @returns whether there was anything */
  async passOn(sink: StateSink): Promise<boolean> {
    // A FIFO that nobody has opened for writing reads as ended: so wait first, then read.
    await this.#readable();
    for (let begun = false; ; ) {
      if (this.#abandoned !== undefined) throw this.#abandoned;
      const { room } = sink;
      const count = this.platform.descriptors.read(this.fd, room);
      // What no QEMU could load must not be taken for a guest that was saved. Its first write is 32 KiB.
      if (!begun && count && !isRawQemu(room.subarray(0, count)))
        throw new TransferError("what QEMU writes does not begin as a state of QEMU's");
      if (count === 0) return begun;
      begun ||= count !== null;
      if (count !== null) await sink.filled(count);
      else if (this.#writerDone)
        throw new TransferError("QEMU says that it has written its state, and holds its end of it open");
      else await this.#readable();
    }
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    this.platform.descriptors.onReadable(this.fd, null);
    this.platform.descriptors.close(this.fd);
  }

  #readable(): Promise<void> {
    const { clock, descriptors } = this.platform;
    if (this.#writerDone) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = (error?: unknown) => {
        timer.cancel();
        this.#wake = undefined;
        if (this.#open) descriptors.onReadable(this.fd, null);
        if (error === undefined) resolve();
        else reject(error);
      };
      const timer = clock.setTimer(stallDeadline, () =>
        done(new TransferError(`QEMU wrote nothing of its state for ${stallDeadline / 1000} s`)),
      );
      this.#wake = done;
      descriptors.onReadable(this.fd, () => done());
    });
  }
}
