/**
 * The control channel: commands run in dom0 by the lab, several at once, over one byte stream (a virtio-serial
 * port; `dom0/labd.py` is at the other end). All numbers are big-endian:
 *
 *     +----------------+----------------+---------+---------------------+
 *     | length  u32    | channel  u32   | type u8 | payload[length]     |
 *     +----------------+----------------+---------+---------------------+
 *
 * A channel number is one command, chosen by the lab and never used again; 0 is nobody's.
 */

import { EventEmitter } from "node:events";
import type { Duplex } from "node:stream";
import { LabError } from "./errors.ts";

/** To dom0. OPEN: JSON {argv, cwd?, env?, pty?: {rows, columns}}; SIGNAL: u8; RESIZE: rows u16, columns u16. */
const OPEN = 1;
export const DATA = 2;
export const EOF = 3;
export const SIGNAL = 4;
const RESIZE = 5;
const PING = 6;
/** From dom0. EXIT: JSON {code} | {signal} | {error}; PONG: the payload of its PING. */
export const STDOUT = 17;
export const STDERR = 18;
export const EXIT = 19;
const PONG = 20;

const HEADER = 9;
/** dom0 sends chunks of 64 KiB; more than this can only be a stream that has lost its framing. */
const MAX_PAYLOAD = 1 << 20;
const CHUNK = 64 * 1024;

export interface Frame {
  readonly channel: number;
  readonly type: number;
  readonly payload: Buffer;
}

export function encodeFrame({ channel, type, payload }: Frame): Buffer {
  const head = Buffer.alloc(HEADER);
  head.writeUInt32BE(payload.length, 0);
  head.writeUInt32BE(channel, 4);
  head.writeUInt8(type, 8);
  return Buffer.concat([head, payload]);
}

/** Cuts a byte stream into frames, however the bytes are split. */
export class FrameReader {
  #buffer: Buffer = Buffer.alloc(0);

  /** The frames that these bytes complete. Throws a {@link LabError} if the framing is lost. */
  push(chunk: Buffer): Frame[] {
    this.#buffer = this.#buffer.length === 0 ? chunk : Buffer.concat([this.#buffer, chunk]);
    const frames: Frame[] = [];
    while (this.#buffer.length >= HEADER) {
      const length = this.#buffer.readUInt32BE(0);
      if (length > MAX_PAYLOAD) throw new LabError(`control channel: a frame of ${length} bytes`);
      if (this.#buffer.length < HEADER + length) break;
      frames.push({
        channel: this.#buffer.readUInt32BE(4),
        type: this.#buffer.readUInt8(8),
        payload: this.#buffer.subarray(HEADER, HEADER + length),
      });
      this.#buffer = this.#buffer.subarray(HEADER + length);
    }
    return frames;
  }
}

export interface OpenOptions {
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Run on a terminal of this size; standard output and error are one then. */
  readonly pty?: { readonly rows: number; readonly columns: number };
}

/** Both ends of a promise that is settled later. */
interface Settle<T> {
  resolve(value: T): void;
  reject(reason: Error): void;
}

interface RemoteEvents {
  stdout: [Buffer];
  stderr: [Buffer];
}

/** A command running in dom0. `exited` always settles: with the status, or with why the channel ended. */
export class RemoteProcess extends EventEmitter<RemoteEvents> {
  /** Exit status; a signal N gives 128 + N, as in a shell. Rejects when the channel or the host ends. */
  readonly exited: Promise<number>;
  readonly #write: (type: number, payload: Buffer) => void;
  #settle: Settle<number> = { resolve() {}, reject() {} };

  constructor(write: (type: number, payload: Buffer) => void) {
    super();
    this.#write = write;
    this.exited = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.exited.catch(() => {}); // an unwatched command's end is no unhandled rejection
  }

  write(data: Uint8Array): void {
    for (let at = 0; at < data.length; at += CHUNK) {
      this.#write(DATA, Buffer.from(data.subarray(at, at + CHUNK)));
    }
  }

  /** Ends standard input, after what was written before. */
  end(data?: Uint8Array): void {
    if (data !== undefined) this.write(data);
    this.#write(EOF, Buffer.alloc(0));
  }

  /** Sends a signal, by number, to the command and the processes of its group. */
  kill(signal: number): void {
    this.#write(SIGNAL, Buffer.from([signal]));
  }

  resize(rows: number, columns: number): void {
    const payload = Buffer.alloc(4);
    payload.writeUInt16BE(rows, 0);
    payload.writeUInt16BE(columns, 2);
    this.#write(RESIZE, payload);
  }

  /** For the channel: a frame of this command came. */
  receive(type: number, payload: Buffer): void {
    if (type === STDOUT) this.emit("stdout", payload);
    else if (type === STDERR) this.emit("stderr", payload);
    else if (type === EXIT) {
      const end = JSON.parse(payload.toString()) as { code?: number; signal?: number; error?: string };
      if (end.error !== undefined) this.fail(new LabError(`in dom0: ${end.error}`));
      else this.#settle.resolve(end.code ?? 128 + (end.signal ?? 0));
    }
  }

  fail(error: Error): void {
    this.#settle.reject(error);
  }
}

/** The lab's end of the control channel. */
export class ControlChannel {
  /** When bytes last came from dom0, in milliseconds since the epoch. */
  lastHeard = Date.now();
  readonly #stream: Duplex;
  readonly #processes = new Map<number, RemoteProcess>();
  readonly #pongs = new Map<string, Settle<void>>();
  #next = 1;
  #closed: Error | undefined;

  constructor(stream: Duplex) {
    this.#stream = stream;
    const reader = new FrameReader();
    stream.on("data", (chunk: Buffer) => {
      this.lastHeard = Date.now();
      try {
        for (const frame of reader.push(chunk)) this.#receive(frame);
      } catch (error) {
        this.close(error instanceof Error ? error : new Error(String(error)));
      }
    });
    stream.on("error", (error) => this.close(error));
    stream.on("close", () => this.close(new LabError("control channel: closed")));
  }

  /** Whether commands are under way, so that silence may mean that dom0 is stuck. */
  get busy(): boolean {
    return this.#processes.size > 0;
  }

  open(argv: readonly string[], options: OpenOptions = {}): RemoteProcess {
    const channel = this.#next++;
    const process = new RemoteProcess((type, payload) => this.#send({ channel, type, payload }));
    if (this.#closed !== undefined) {
      process.fail(this.#closed);
      return process;
    }
    // Silence before anything was asked is no silence.
    if (!this.busy) this.lastHeard = Date.now();
    this.#processes.set(channel, process);
    this.#send({ channel, type: OPEN, payload: Buffer.from(JSON.stringify({ argv, ...options })) });
    return process;
  }

  /** Resolves when dom0 answers; it need not be up yet. Rejects when the channel ends before it has. */
  ping(): Promise<void> {
    const token = String(this.#next++);
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) return reject(this.#closed);
      this.#pongs.set(token, { resolve, reject });
      this.#send({ channel: 0, type: PING, payload: Buffer.from(token) });
    });
  }

  /** Ends the channel; commands and pings under way are rejected with `reason`. May be called twice. */
  close(reason: Error): void {
    if (this.#closed !== undefined) return;
    this.#closed = reason;
    for (const process of this.#processes.values()) process.fail(reason);
    this.#processes.clear();
    for (const pong of this.#pongs.values()) pong.reject(reason);
    this.#pongs.clear();
    this.#stream.destroy();
  }

  #send(frame: Frame): void {
    if (this.#closed === undefined) this.#stream.write(encodeFrame(frame));
  }

  #receive({ channel, type, payload }: Frame): void {
    if (type === PONG) {
      const token = payload.toString();
      this.#pongs.get(token)?.resolve();
      this.#pongs.delete(token);
      return;
    }
    this.#processes.get(channel)?.receive(type, payload);
    if (type === EXIT) this.#processes.delete(channel);
  }
}
