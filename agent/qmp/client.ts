import { encodeText } from "../bytes/text.ts";
import type { Logger } from "../log/logger.ts";
import type { Clock, Timer } from "../platform/port.ts";
import type { PassingStream } from "../platform/stream.ts";
import { QmpCommandError, QmpConnectionClosed, QmpError, QmpFramingError, QmpTimeout } from "./errors.ts";
import { type Message, MessageReader, replyBounds } from "./framing.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "./json.ts";

export interface QmpEvent {
  readonly name: string;
  readonly data: JsonObject;
}

/**
 * Where a connection stands; it only ever moves to the right:
 * `greeting` (nothing received) -> `negotiating` -> `ready` (commands are taken) -> `closed`.
 */
export type QmpState = "greeting" | "negotiating" | "ready" | "closed";

interface Pending {
  readonly command: string;
  readonly most: number;
  readonly deadline: Timer;
  /** Its descriptor, if it takes one, is QEMU's: whatever answers before answers something else. */
  passed: boolean;
  resolve(value: JsonValue): void;
  reject(error: QmpError): void;
}

/** Bytes that are parsed of what QEMU sends as it likes: an event's data, an error. Parsed they are some thirty times as many. */
const mostUnasked = 16 * 1024;
/** Bytes of a number, or of an event's name. */
const mostName = 256;
/** Bytes of an answer that are parsed unless its caller says otherwise; the agent asks for nothing long. */
const mostAnswer = 64 * 1024;
/** For whoever wants all that QEMU has to say of itself. */
export const longAnswer = replyBounds.bytes;

/** How long one command may take unless its caller says otherwise, in milliseconds. */
export const commandDeadline = 5_000;

/**
 * The agent's own QMP connection. QEMU is not trusted: a reply to nothing, an unknown event or a broken
 * message is logged or ends the connection, and never reaches a caller as a value of a surprising shape.
 */
export class QmpClient {
  #state: QmpState = "greeting";
  #nextId = 1;
  #pending = new Map<number, Pending>();
  #greeted: { resolve(): void; reject(error: QmpError): void } | undefined;

  constructor(
    private readonly stream: PassingStream,
    private readonly context: {
      readonly clock: Clock;
      readonly log: Logger;
      /** Called for each event, in order; must not throw. */
      readonly onEvent?: (event: QmpEvent) => void;
      /** Called once, when the connection has ended for whatever reason. */
      readonly onClosed?: (reason: QmpError) => void;
    },
  ) {}

  get state(): QmpState {
    return this.#state;
  }

  /**
   * Waits for QEMU's greeting and leaves negotiation mode. Call it once, before anything else.
   *
   * @param milliseconds for both steps together
   * @throws QmpTimeout, QmpConnectionClosed, QmpFramingError; the connection is closed then
   */
  async handshake(milliseconds: number): Promise<void> {
    const started = this.context.clock.now();
    const greeted = new Promise<void>((resolve, reject) => {
      this.#greeted = { resolve, reject };
    });
    const deadline = this.context.clock.setTimer(milliseconds, () =>
      this.#end(new QmpTimeout("the connection", milliseconds)),
    );
    void this.#receive();
    try {
      await greeted;
    } finally {
      deadline.cancel();
    }
    const left = Math.max(0, milliseconds - (this.context.clock.now() - started));
    try {
      await this.#send("qmp_capabilities", {}, left, mostAnswer);
    } catch (error) {
      this.#end(error instanceof QmpError ? error : new QmpError(String(error)));
      throw error;
    }
    if (this.#state === "negotiating") this.#state = "ready";
  }

  /**
   * Runs one command; any number may be under way at once. An answer of more than `most` bytes is an error.
   *
   * @throws QmpCommandError when QEMU refuses it, QmpTimeout, QmpConnectionClosed
   */
  execute(
    command: string,
    args: JsonObject = {},
    milliseconds = commandDeadline,
    most = mostAnswer,
  ): Promise<JsonValue> {
    if (this.#state === "ready") return this.#send(command, args, milliseconds, most);
    return Promise.reject(new QmpConnectionClosed(`QMP ${command}: the connection is ${this.#state}`));
  }

  /**
   * Like {@link execute}, for a command that takes a descriptor (`add-fd`, `getfd`), of which QEMU gets a copy.
   * The caller's own may be closed once this has settled: a QEMU that has not even taken it by then has read nothing for
   * all that time, and the connection ends.
   */
  executeWith(
    descriptor: number,
    command: string,
    args: JsonObject = {},
    milliseconds = commandDeadline,
  ): Promise<JsonValue> {
    if (this.#state === "ready") return this.#send(command, args, milliseconds, mostAnswer, descriptor);
    return Promise.reject(new QmpConnectionClosed(`QMP ${command}: the connection is ${this.#state}`));
  }

  /** Idempotent; what is pending is rejected. */
  close(): void {
    this.#end(new QmpConnectionClosed("QMP: closed by the agent"));
  }

  #send(
    command: string,
    args: JsonObject,
    milliseconds: number,
    most: number,
    descriptor?: number,
  ): Promise<JsonValue> {
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      const deadline = this.context.clock.setTimer(milliseconds, () => {
        const error = new QmpTimeout(command, milliseconds);
        if (!pending.passed) this.#end(error);
        this.#pending.delete(id);
        reject(error);
      });
      const pending: Pending = {
        ...{ command, most, deadline, resolve, reject },
        passed: descriptor === undefined,
      };
      this.#pending.set(id, pending);
      const request = encodeText(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
      // Whoever ended the connection has rejected this command too.
      const written =
        descriptor === undefined ? this.stream.write(request) : this.stream.writeWith(request, descriptor);
      written.then(
        () => {
          pending.passed = true;
        },
        (error: unknown) => this.#end(closed(error)),
      );
    });
  }

  async #receive(): Promise<void> {
    const reader = new MessageReader(replyBounds);
    try {
      for (;;) {
        const chunk = await this.stream.read();
        if (chunk === null) throw new QmpConnectionClosed("QMP: QEMU closed the connection");
        for (const piece of reader.push(chunk)) if (piece.kind === "message") this.#dispatch(piece.message);
      }
    } catch (error) {
      this.#end(error instanceof QmpError ? error : closed(error));
    }
  }

  #dispatch(message: Message): void {
    if (message.raw("event") !== undefined) this.#event(message);
    else if (message.raw("QMP") !== undefined) this.#greeting();
    else this.#answer(message);
  }

  #greeting(): void {
    if (this.#state !== "greeting") throw new QmpFramingError("QEMU greeted twice");
    this.#state = "negotiating";
    this.#greeted?.resolve();
  }

  #answer(message: Message): void {
    const id = bounded(message, "id", mostName);
    const pending = typeof id === "number" ? this.#pending.get(id) : undefined;
    if (typeof id !== "number" || pending === undefined) {
      // Also the late answer to a command that was given up.
      this.context.log.debug({}, "QMP: an answer that nobody waits for");
      return;
    }
    if (!pending.passed)
      throw new QmpFramingError(`an answer to "${pending.command}" before QEMU has taken it`);
    this.#pending.delete(id);
    pending.deadline.cancel();
    const { command, most, resolve, reject } = pending;
    try {
      if (message.raw("error") !== undefined) {
        reject(commandError(command, bounded(message, "error", mostUnasked) ?? null));
      } else if ((message.raw("return")?.length ?? 0) > most) {
        reject(new QmpCommandError(command, "GenericError", `QEMU's answer has more than ${most} bytes`));
      } else {
        resolve(message.value("return") ?? null);
      }
    } catch (error) {
      // It ends the connection, and this command has left the list of those that hear of that.
      reject(error instanceof QmpError ? error : closed(error));
      throw error;
    }
  }

  #event(message: Message): void {
    const name = bounded(message, "event", mostName);
    const data = bounded(message, "data", mostUnasked);
    if (data === undefined && message.raw("data") !== undefined)
      this.context.log.debug({}, "QMP: an event with more data than any of QEMU's: they are left out");
    if (typeof name !== "string") throw new QmpFramingError("an event without a name");
    this.context.onEvent?.({ name, data: isJsonObject(data) ? data : {} });
  }

  #end(reason: QmpError): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.stream.close();
    this.#greeted?.reject(reason);
    for (const { deadline, reject } of this.#pending.values()) {
      deadline.cancel();
      reject(reason);
    }
    this.#pending.clear();
    this.context.onClosed?.(reason);
  }
}

/** A member's value; `undefined` when there is none, or one that is longer than any true one. */
function bounded(message: Message, name: string, most: number): JsonValue | undefined {
  return (message.raw(name)?.length ?? 0) > most ? undefined : message.value(name);
}

function closed(error: unknown): QmpError {
  return new QmpConnectionClosed(
    `QMP: the connection broke: ${error instanceof Error ? error.message : error}`,
  );
}

function commandError(command: string, error: JsonValue): QmpCommandError {
  const { class: errorClass, desc } = isJsonObject(error) ? error : {};
  return new QmpCommandError(
    command,
    typeof errorClass === "string" ? errorClass : "GenericError",
    typeof desc === "string" ? desc : "(no description)",
  );
}
