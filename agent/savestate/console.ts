import { ConsoleFrontend } from "../frontends/console.ts";
import { waitForFrontends } from "../frontends/wait.ts";
import type { Platform, Timer } from "../platform/port.ts";
import { DescriptorStream } from "../platform/stream.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { TransferError } from "./errors.ts";
import type { ExtentSink, ExtentSource } from "./extent.ts";

/*
 * libxl's own channels: what is written to console 1 ends in /var/lib/xen/qemu-save.T, console 2 gives what is
 * in /var/lib/xen/qemu-resume.T. They know no end and no error, so what goes over them is framed as an extent
 * of a state disk (format.ts), which libxl carries as it is.
 */
const saveConsole = 1;
const restoreConsole = 2;

/** How long a console may take to connect, in milliseconds. */
const connectDeadline = 10_000;
/** Console 2 without a byte for so long, before the first one and after it, has ended. libxl waits 30 s in all. */
const firstByteDeadline = 15_000;
const silence = 10_000;

/**
 * Zeros sent after the state. A byte is in dom0's file when dom0's QEMU, after taking it from the ring, has
 * come back for more: the ring holds 2 KiB, so twice that behind the last byte, accepted, proves it. The
 * driver's own few bytes come on top. Readers stop at the commit record.
 */
const padding = 8 * 1024;

/** Each so many bytes must have gone within {@link stallDeadline}, in milliseconds. */
const piece = 16 * 1024;
const stallDeadline = 30_000;

/** Opens a console once it is connected: before, its terminal is nobody's. @throws TransferError, SystemError */
async function openConsole(platform: Platform, xenstore: XenstoreClient, id: number) {
  const console = await ConsoleFrontend.read(xenstore, id);
  if (!console.awaited) {
    throw new TransferError(
      `${console.label} leads nowhere: dom0 gave it no "output"; start dom0's helper: stubdom dom0 serve`,
    );
  }
  const [outcome] = await waitForFrontends(xenstore, platform, [console], connectDeadline);
  if (outcome?.connected === false) throw new TransferError(outcome.error.message);
  return { fd: platform.sockets.openTerminalRaw(console.device), path: console.device };
}

/** Console 1 as a place to write an extent to. */
export class SaveConsole implements ExtentSink {
  readonly #stream: DescriptorStream;
  #last: Promise<void> = Promise.resolve();

  private constructor(
    private readonly platform: Platform,
    readonly fd: number,
    private readonly path: string,
  ) {
    this.#stream = new DescriptorStream(platform.descriptors, fd, path);
  }

  /** @throws TransferError when dom0 does not serve it */
  static async open(platform: Platform, xenstore: XenstoreClient): Promise<SaveConsole> {
    const { fd, path } = await openConsole(platform, xenstore, saveConsole);
    return new SaveConsole(platform, fd, path);
  }

  /** @throws TransferError when dom0 takes nothing any more */
  put(bytes: Uint8Array): Promise<void> {
    this.#last = this.#last.then(() => this.#pass(bytes));
    return this.#last;
  }

  async #pass(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += piece) {
      await this.#inTime(this.#stream.write(bytes.subarray(at, at + piece)));
    }
  }

  /** Everything put so far is in dom0's file when this resolves. */
  async drain(): Promise<void> {
    await this.put(new Uint8Array(padding));
    await this.#inTime(this.platform.storage.drain(this.fd));
  }

  close(): void {
    this.#stream.close();
  }

  async #inTime(progress: Promise<void>): Promise<void> {
    let timer: Timer | undefined;
    const stalled = new Promise<never>((_, reject) => {
      const text = `${this.path} took nothing for ${stallDeadline / 1000} s; see whether dom0's QEMU for the stub domain runs`;
      timer = this.platform.clock.setTimer(stallDeadline, () => reject(new TransferError(text)));
    });
    try {
      await Promise.race([progress, stalled]);
    } finally {
      timer?.cancel();
    }
  }
}

/**
 * Console 2 as a place to read from: an extent, or bare bytes. Its end is silence, for dom0's QEMU has no way
 * to tell that it has given all.
 */
export class RestoreConsole implements ExtentSource {
  readonly #stream: DescriptorStream;
  #rest: Uint8Array = new Uint8Array(0);
  #patience = firstByteDeadline;

  private constructor(
    private readonly platform: Platform,
    fd: number,
    path: string,
  ) {
    this.#stream = new DescriptorStream(platform.descriptors, fd, path);
  }

  /** @throws TransferError when dom0 does not serve it */
  static async open(platform: Platform, xenstore: XenstoreClient): Promise<RestoreConsole> {
    const { fd, path } = await openConsole(platform, xenstore, restoreConsole);
    return new RestoreConsole(platform, fd, path);
  }

  /** The next bytes, at least `count` unless the console ends, without taking them. */
  async peek(count: number): Promise<Uint8Array> {
    while (this.#rest.length < count) {
      const more = await this.#next();
      if (more === null) break;
      const joined = new Uint8Array(this.#rest.length + more.length);
      joined.set(this.#rest);
      joined.set(more, this.#rest.length);
      this.#rest = joined;
    }
    return this.#rest;
  }

  /** Some bytes; `null` when the console has ended. */
  async read(): Promise<Uint8Array | null> {
    if (this.#rest.length === 0) return this.#next();
    const rest = this.#rest;
    this.#rest = new Uint8Array(0);
    return rest;
  }

  async take(into: Uint8Array): Promise<number> {
    let count = 0;
    while (count < into.length) {
      const part = await this.read();
      if (part === null) break;
      const wanted = part.subarray(0, into.length - count);
      into.set(wanted, count);
      count += wanted.length;
      this.#rest = part.subarray(wanted.length);
    }
    return count;
  }

  close(): void {
    this.#stream.close();
  }

  async #next(): Promise<Uint8Array | null> {
    const timer = this.platform.clock.setTimer(this.#patience, () => this.close());
    const bytes = await this.#stream.read();
    timer.cancel();
    this.#patience = silence;
    return bytes;
  }
}
