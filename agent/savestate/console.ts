import type { Platform, Timer } from "../platform/port.ts";
import { DescriptorStream } from "../platform/stream.ts";
import { TransferError } from "./errors.ts";
import type { ExtentSink, ExtentSource } from "./extent.ts";

/*
 * libxl's own channels: what is written to console 1 ends in /var/lib/xen/qemu-save.T, console 2 gives what is
 * in /var/lib/xen/qemu-resume.T. They know no end and no error, so what goes over them is framed as an extent
 * of a state disk (format.ts), which libxl carries as it is.
 */
const saveConsole = "/dev/hvc1";
const restoreConsole = "/dev/hvc2";

/**
 * Zeros sent after the state. A byte is in dom0's file when dom0's QEMU, after taking it from the ring, has
 * come back for more: the ring holds 2 KiB, so twice that behind the last byte, accepted, proves it. The
 * driver's own few bytes come on top. Readers stop at the commit record.
 */
const padding = 8 * 1024;

/** Each so many bytes must have gone within {@link stallDeadline}, in milliseconds. */
const piece = 16 * 1024;
const stallDeadline = 30_000;

/** Console 1 as a place to write an extent to. */
export class SaveConsole implements ExtentSink {
  readonly #fd: number;
  readonly #stream: DescriptorStream;

  constructor(private readonly platform: Platform) {
    this.#fd = platform.sockets.openTerminalRaw(saveConsole);
    this.#stream = new DescriptorStream(platform.descriptors, this.#fd, saveConsole);
  }

  /** @throws TransferError when dom0 takes nothing any more */
  async put(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += piece) {
      await this.#inTime(this.#stream.write(bytes.subarray(at, at + piece)));
    }
  }

  /** Everything put so far is in dom0's file when this resolves. */
  async drain(): Promise<void> {
    await this.put(new Uint8Array(padding));
    await this.#inTime(this.platform.storage.drain(this.#fd));
  }

  close(): void {
    this.#stream.close();
  }

  async #inTime(progress: Promise<void>): Promise<void> {
    let timer: Timer | undefined;
    const stalled = new Promise<never>((_, reject) => {
      const text = `${saveConsole} took nothing for ${stallDeadline / 1000} s; see whether dom0's QEMU for the stub domain runs`;
      timer = this.platform.clock.setTimer(stallDeadline, () => reject(new TransferError(text)));
    });
    try {
      await Promise.race([progress, stalled]);
    } finally {
      timer?.cancel();
    }
  }
}

/** Console 2 as a place to read from: an extent, or bare bytes. */
export class RestoreConsole implements ExtentSource {
  readonly #stream: DescriptorStream;
  #rest: Uint8Array = new Uint8Array(0);

  constructor(platform: Platform) {
    const fd = platform.sockets.openTerminalRaw(restoreConsole);
    this.#stream = new DescriptorStream(platform.descriptors, fd, restoreConsole);
  }

  /** The next bytes, at least `count` unless the console ends, without taking them. */
  async peek(count: number): Promise<Uint8Array> {
    while (this.#rest.length < count) {
      const more = await this.#stream.read();
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
    if (this.#rest.length === 0) return this.#stream.read();
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
}
