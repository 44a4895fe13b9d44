import { concatBytes } from "../bytes/bytes.ts";
import { encodeText } from "../bytes/text.ts";
import type { ByteStream } from "../platform/stream.ts";
import { ControlFilter } from "./control-filter.ts";
import { QmpCommandError, QmpFramingError } from "./errors.ts";
import { commandBounds, LineScanner, type Message, MessageReader } from "./framing.ts";
import { isJsonObject, type JsonObject, type JsonValue } from "./json.ts";

/**
 * A command carried out by the agent in QEMU's place: gets its arguments, returns what becomes `return`.
 * A {@link QmpCommandError} becomes the error of that class, any other error a `GenericError`.
 */
export type CommandHandler = (args: JsonObject) => Promise<JsonValue>;

/**
 * What a command has to wait for before it is passed on, unchanged: resolves when it may go, rejects with why it
 * is refused, as in {@link CommandHandler}. It must settle by itself: while it waits, the session stands still.
 */
export type CommandGate = (args: JsonObject) => Promise<void>;

/** What the agent has to do with single commands, by their names. */
export interface CommandRules {
  readonly takeOver?: ReadonlyMap<string, CommandHandler>;
  readonly gates?: ReadonlyMap<string, CommandGate>;
}

export interface SessionSummary {
  /** Who ended the session. `fault`: bytes that are not QMP, or a stream that broke. */
  readonly endedBy: "toolstack" | "qemu" | "fault";
  readonly error?: Error;
  /** Commands passed on or taken over. */
  readonly commands: number;
}

/**
 * Most bytes of events that wait for an answer to go out with. One is some 200 bytes long, and QEMU sends those that
 * a guest can cause at will once a second at most.
 */
const heldEvents = 16 * 1024;
/**
 * Most bytes that pass while an answer is owed: libxl keeps every event until its command is answered. The largest true answer
 * has about 250 KiB.
 */
const mostUnanswered = 2 * 1024 * 1024;

/**
 * One session of the toolstack, from its connection to its end, over one connection of its own to QEMU: QEMU
 * itself then greets each session and forgets its half-written commands and its capabilities, and nothing
 * of one session can reach the next.
 *
 * All bytes pass, in order and no faster than the other side takes them, unchanged but for QEMU's control characters
 * ({@link ControlFilter}) and for the commands named in the rules. One that is taken over, or that its gate refuses,
 * waits until QEMU has answered every command before it; those after it wait for its answer.
 *
 * What QEMU says unasked, which is events, goes out before its next answer, or when 16 KiB have gathered: between
 * two commands libxl may hang up at any moment, and what then reaches dom0's vchan-socket-proxy ends it by SIGPIPE
 * (xen: tools/vchan/vchan-socket-proxy.c writes to a socket that libxl has closed), and QMP with it for the guest's
 * life. When the session ends, nobody waits for one under way. Both
 * streams are closed when the promise resolves; it never rejects.
 */
export function proxySession(
  toolstack: ByteStream,
  qemu: ByteStream,
  rules: CommandRules = {},
): Promise<SessionSummary> {
  return new Session(toolstack, qemu, rules).run();
}

class Session {
  /** What QEMU still owes; the greeting is the first of it. */
  #unanswered = 1;
  #commands = 0;
  /** Called when nothing is owed and what was passed to the toolstack ends with a whole line. */
  #whenQuiet: (() => void) | undefined;
  readonly #controls = new ControlFilter();
  /** Bytes that came from QEMU since its last answer, or since nothing was owed. */
  #unasked = 0;
  /** An answer is owed by us: a handler or a gate is at work. */
  #atWork = false;
  /** An answer of ours, to be sent between two lines of QEMU's. */
  #answer: Uint8Array | undefined;
  readonly #lines = new LineScanner();
  /** Whether the line that QEMU is in began when nothing was owed. */
  #holding = false;
  /** Those lines, and what there is of the last. */
  #held: Uint8Array = new Uint8Array(0);
  #summary: SessionSummary | undefined;
  #end: () => void = () => {};
  /** Resolves when either side has ended the session. */
  readonly #over = new Promise<undefined>((resolve) => {
    this.#end = () => resolve(undefined);
  });

  constructor(
    private readonly toolstack: ByteStream,
    private readonly qemu: ByteStream,
    private readonly rules: CommandRules,
  ) {}

  async run(): Promise<SessionSummary> {
    await Promise.all([
      this.#ending("toolstack", this.#passCommands()),
      this.#ending("qemu", this.#passReplies()),
    ]);
    return { ...(this.#summary ?? { endedBy: "fault" }), commands: this.#commands };
  }

  /** Whichever direction ends first says why, and takes the other one with it. */
  async #ending(side: "toolstack" | "qemu", direction: Promise<void>): Promise<void> {
    let summary: SessionSummary = { endedBy: side, commands: 0 };
    try {
      await direction;
    } catch (error) {
      const fault = error instanceof Error ? error : new Error(String(error));
      summary = { endedBy: "fault", error: fault, commands: 0 };
    }
    this.#summary ??= summary;
    this.toolstack.close();
    this.qemu.close();
    this.#whenQuiet?.();
    this.#end();
  }

  async #passCommands(): Promise<void> {
    const reader = new MessageReader(commandBounds);
    for (let chunk = await this.toolstack.read(); chunk !== null; chunk = await this.toolstack.read()) {
      for (const piece of reader.push(chunk)) {
        if (piece.kind === "space") await this.qemu.write(piece.bytes);
        else await this.#command(piece.message);
      }
    }
  }

  async #command(message: Message): Promise<void> {
    this.#atWork = true;
    await this.#carryOut(message);
    this.#atWork = false;
  }

  async #carryOut(message: Message): Promise<void> {
    this.#commands++;
    const name = this.#nameOf(message);
    const handler = this.rules.takeOver?.get(name);
    const gate = this.rules.gates?.get(name);
    let answer: Uint8Array | undefined;
    if (handler === undefined) {
      answer = gate && (await refusalBy(gate, message));
      if (this.#summary !== undefined) return;
      if (answer === undefined) {
        this.#unanswered++;
        return this.qemu.write(message.bytes);
      }
    }
    await this.#quiet();
    // The session may have ended meanwhile; a command that nobody waits for any more is not begun.
    if (this.#summary !== undefined) return;
    // One that is under way when the session ends goes on by itself: with QEMU gone, the toolstack is not kept.
    if (handler !== undefined) answer = await Promise.race([carryOut(message, handler), this.#over]);
    if (answer !== undefined) await this.#send(answer);
  }

  /** Empty when there is nothing to do with commands, or this is none. */
  #nameOf(message: Message): string {
    if (!this.rules.takeOver?.size && !this.rules.gates?.size) return "";
    try {
      const name = message.lenientValue("execute");
      return typeof name === "string" ? name : "";
    } catch (error) {
      // QEMU words the error for what is no JSON.
      if (error instanceof QmpFramingError) return "";
      throw error;
    }
  }

  /** Whether what was passed to the toolstack so far ends with a whole line. */
  get #lineStart(): boolean {
    return this.#lines.atStart || this.#holding;
  }

  #quiet(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenQuiet = () => {
        if (this.#summary === undefined && (this.#unanswered > 0 || !this.#lineStart)) return;
        this.#whenQuiet = undefined;
        resolve();
      };
      this.#whenQuiet();
    });
  }

  /** Between two lines: at once, or when the line that QEMU is in the middle of has ended. */
  async #send(answer: Uint8Array): Promise<void> {
    if (this.#lines.atStart) return this.toolstack.write(concatBytes([this.#released(), answer]));
    if (this.#holding) return this.toolstack.write(answer);
    this.#answer = answer;
    // Its bytes go out with QEMU's next line; what the toolstack sent after it waits for that.
    await this.#quiet();
  }

  async #passReplies(): Promise<void> {
    for (let chunk = await this.qemu.read(); chunk !== null; chunk = await this.qemu.read()) {
      this.#controls.filter(chunk);
      const owed = this.#unanswered > 0 || this.#atWork;
      this.#unasked = owed ? this.#unasked + chunk.length : 0;
      const parts = this.#sorted(chunk);
      if (this.#unasked > mostUnanswered)
        throw new QmpFramingError(`QEMU sent ${this.#unasked} bytes and no answer among them`);
      const written =
        parts.length > 0 &&
        this.toolstack.write(parts.length === 1 ? (parts[0] ?? chunk) : concatBytes(parts));
      this.#whenQuiet?.();
      await written;
    }
    await this.toolstack.write(this.#released());
  }

  /** What goes out now that `chunk` is there. */
  #sorted(chunk: Uint8Array): Uint8Array[] {
    const parts: Uint8Array[] = [];
    let start = 0;
    if (this.#lines.atStart) this.#holding = this.#unanswered === 0;
    for (const end of this.#lines.push(chunk, (kind) => this.#answered(kind))) {
      parts.push(...this.#passed(chunk.subarray(start, end)));
      start = end;
      if (this.#answer !== undefined) parts.push(this.#answer);
      this.#answer = undefined;
      this.#holding = this.#unanswered === 0;
    }
    if (start < chunk.length) parts.push(...this.#passed(chunk.subarray(start)));
    return parts;
  }

  #passed(part: Uint8Array): Uint8Array[] {
    if (this.#holding) {
      this.#held = concatBytes([this.#held, part]);
      if (this.#held.length <= heldEvents) return [];
      this.#holding = false;
      return [this.#released()];
    }
    return this.#held.length > 0 ? [this.#released(), part] : [part];
  }

  #released(): Uint8Array {
    const held = this.#held;
    this.#held = new Uint8Array(0);
    return held;
  }

  #answered(kind: "event" | "answer"): void {
    if (kind !== "answer") return;
    this.#unasked = 0;
    if (this.#unanswered > 0) this.#unanswered--;
  }
}

async function carryOut(message: Message, handler: CommandHandler): Promise<Uint8Array> {
  try {
    return answerTo(message, `"return": ${JSON.stringify(await handler(argumentsOf(message)))}`);
  } catch (error) {
    return refusal(message, error);
  }
}

/** `undefined` when the gate lets the command pass. */
async function refusalBy(gate: CommandGate, message: Message): Promise<Uint8Array | undefined> {
  try {
    await gate(argumentsOf(message));
    return undefined;
  } catch (error) {
    return refusal(message, error);
  }
}

function argumentsOf(message: Message): JsonObject {
  const args = message.lenientValue("arguments") ?? {};
  if (!isJsonObject(args)) throw new Error("QMP input member 'arguments' must be an object");
  return args;
}

function refusal(message: Message, error: unknown): Uint8Array {
  const { class: name, desc } =
    error instanceof QmpCommandError
      ? { class: error.errorClass, desc: error.description }
      : { class: "GenericError", desc: error instanceof Error ? error.message : String(error) };
  return answerTo(message, `"error": ${JSON.stringify({ class: name, desc })}`);
}

function answerTo(message: Message, outcome: string): Uint8Array {
  const id = message.raw("id");
  const idMember = id === undefined ? [] : [encodeText(', "id": '), id];
  // What QEMU said to us may be in it.
  const member = encodeText(`{${outcome}`);
  new ControlFilter().filter(member);
  return concatBytes([member, ...idMember, encodeText("}\r\n")]);
}
