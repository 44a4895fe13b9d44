import { decodeText } from "../bytes/text.ts";
import { QmpFramingError } from "./errors.ts";
import type { JsonValue } from "./json.ts";

/*
 * QMP is a stream of JSON objects in both directions (QEMU, docs/interop/qmp-spec.rst):
 *
 *     QEMU   -> client   {"QMP": {...}}\r\n {"return": ..., "id": ...}\r\n {"event": ..., "data": ...}\r\n
 *     client -> QEMU     {"execute": NAME, "arguments": {...}, "id": ANY}
 *
 * QEMU ends each object with CR LF, a client need not put anything between two of them, and QEMU also takes
 * strings in single quotes, which people type at socat. So an object is found by its brackets and strings,
 * not by lines. What is inside is left to whoever executes the command: no number or literal is checked.
 */

export interface MessageBounds {
  /** Most bytes from the opening to the closing brace. */
  readonly bytes: number;
  /** Most objects and arrays inside one another; QEMU's own parser stops at 1024. */
  readonly depth: number;
}

/** From the toolstack, which is trusted, but may be a person with a file in a pipe. */
export const commandBounds: MessageBounds = { bytes: 1024 * 1024, depth: 128 };

/** From QEMU, which is not trusted: the largest true reply, `query-qmp-schema`, has about 250 KiB. */
export const replyBounds: MessageBounds = { bytes: 512 * 1024, depth: 128 };

/** Members of the outermost object that are remembered; QMP defines at most four for one message. */
const rememberedMembers = 8;
/** Bytes of a key that are kept; longer than any key of QMP's, so a cut one is equal to none. */
const rememberedKey = 16;

const byte = (character: string): number => character.charCodeAt(0);
const openBrace = byte("{");
const closeBrace = byte("}");
const openBracket = byte("[");
const closeBracket = byte("]");
const doubleQuote = byte('"');
const singleQuote = byte("'");
const backslash = byte("\\");
const colon = byte(":");
const comma = byte(",");
const newline = byte("\n");

export function isSpace(value: number): boolean {
  return value === 0x20 || value === 0x0a || value === 0x0d || value === 0x09;
}

/** A member of the outermost object: its key, and where its value lies, in bytes from the opening brace. */
export interface MemberSpan {
  readonly key: string;
  readonly valueStart: number;
  readonly valueEnd: number;
}

/**
 * Finds the end of one message in bytes that come in any pieces, in memory that does not depend on its
 * length, and notes where the members of the outermost object lie.
 */
export class MessageScanner {
  #members: MemberSpan[] = [];
  #position = 0;
  /** The closing bracket that each open one waits for. */
  #open: number[] = [];
  /** The quote that ends the current string, 0 outside of strings. */
  #quote = 0;
  #escaped = false;
  #expect: "key" | "colon" | "value" = "key";
  #key = "";
  #valueStart = -1;
  /** One past the last byte of the message that is not white space. */
  #solidEnd = 0;

  constructor(private readonly bounds: MessageBounds) {}

  /** Members of the message that `scan` completed last; empty before that. */
  get members(): readonly MemberSpan[] {
    return this.#members;
  }

  /** Between two messages: nothing but white space may come before the next opening brace. */
  get idle(): boolean {
    return this.#open.length === 0;
  }

  /** Bytes of the current message seen so far. */
  get length(): number {
    return this.#position;
  }

  /**
   * Consumes `bytes` from `start` on, up to and with the closing brace of the current message, which must
   * have begun: the first byte of a message is its `{`.
   *
   * @returns the index after the closing brace, or -1 when all was consumed and the message goes on
   * @throws QmpFramingError on a byte that cannot be there, or a bound that is exceeded
   */
  scan(bytes: Uint8Array, start: number): number {
    let index = start;
    if (this.idle && index < bytes.length) this.#begin(bytes[index++] ?? 0);
    // Position of a byte in the message, less its index.
    const offset = this.#position - index;
    const limit = Math.min(bytes.length, this.bounds.bytes - offset);
    // The next backslash from `index` on, once it has been looked for.
    let backslashAt = -1;
    for (; index < limit; index++) {
      if (this.#escaped) {
        this.#escaped = false;
        continue;
      }
      if (this.#quote !== 0) {
        // Most bytes are in strings: they are skipped by the engine, which is 20 times as fast.
        if (backslashAt < index) backslashAt = indexOrEnd(bytes, backslash, index);
        const end = Math.min(indexOrEnd(bytes, this.#quote, index), backslashAt, limit);
        this.#skipped(bytes, index, end);
        index = end;
        // A backslash is kept in a key: QMP's keys have none, so none of them is equal to it.
        if (end < limit && end === backslashAt) {
          this.#skipped(bytes, end, end + 1);
          this.#escaped = true;
        } else if (end < limit) this.#endString(offset + end);
        continue;
      }
      const value = bytes[index] ?? 0;
      if (isSpace(value)) continue;
      if (this.#open.length === 1) this.#outermost(value, offset + index);
      switch (value) {
        case doubleQuote:
        case singleQuote:
          this.#quote = value;
          break;
        case openBrace:
        case openBracket:
          if (this.#open.length >= this.bounds.depth) {
            throw new QmpFramingError(`a message nests deeper than ${this.bounds.depth} levels`);
          }
          this.#open.push(value === openBrace ? closeBrace : closeBracket);
          break;
        case closeBrace:
        case closeBracket:
          if (this.#open.pop() !== value) {
            const at = offset + index;
            throw new QmpFramingError(`${printable(value)} at byte ${at} of a message closes nothing`);
          }
          if (this.idle) {
            this.#position = offset + index + 1;
            return index + 1;
          }
          break;
      }
      if (this.#open.length === 1) this.#solidEnd = offset + index + 1;
    }
    this.#position = offset + limit;
    if (this.#position >= this.bounds.bytes) {
      throw new QmpFramingError(`a message has no end within ${this.bounds.bytes} bytes`);
    }
    return -1;
  }

  #begin(value: number): void {
    if (value !== openBrace) {
      throw new QmpFramingError(`a message begins with ${printable(value)}, not with "{"`);
    }
    this.#members = [];
    this.#position = 1;
    this.#open.push(closeBrace);
    this.#expect = "key";
    this.#solidEnd = 1;
  }

  get #inKey(): boolean {
    return this.#open.length === 1 && this.#expect === "key";
  }

  /** Bytes of a string, of which none ends it. */
  #skipped(bytes: Uint8Array, start: number, end: number): void {
    const wanted = Math.min(end, start + rememberedKey - this.#key.length);
    if (this.#inKey && wanted > start) this.#key += String.fromCharCode(...bytes.subarray(start, wanted));
  }

  #endString(position: number): void {
    this.#quote = 0;
    this.#solidEnd = position + 1;
    if (this.#inKey) this.#expect = "colon";
  }

  /** A byte of the outermost object itself, outside of strings and white space. */
  #outermost(value: number, position: number): void {
    if (this.#expect === "colon" && value === colon) {
      this.#expect = "value";
      this.#valueStart = -1;
    } else if (value === comma || value === closeBrace) {
      this.#endMember();
    } else if (this.#expect === "value" && this.#valueStart < 0) {
      this.#valueStart = position;
    } else if (this.#expect === "key" && (value === doubleQuote || value === singleQuote)) {
      this.#key = "";
    }
  }

  #endMember(): void {
    if (this.#expect === "value" && this.#valueStart >= 0 && this.#members.length < rememberedMembers) {
      this.#members.push({ key: this.#key, valueStart: this.#valueStart, valueEnd: this.#solidEnd });
    }
    this.#expect = "key";
  }
}

function indexOrEnd(bytes: Uint8Array, value: number, start: number): number {
  const index = bytes.indexOf(value, start);
  return index < 0 ? bytes.length : index;
}

function printable(value: number): string {
  return value > 0x20 && value < 0x7f ? `"${String.fromCharCode(value)}"` : `byte 0x${value.toString(16)}`;
}

/** One whole message as it was received. */
export class Message {
  constructor(
    readonly bytes: Uint8Array,
    private readonly members: readonly MemberSpan[],
  ) {}

  /** The bytes of the member `name`, unchanged, or `undefined`. */
  raw(name: string): Uint8Array | undefined {
    const span = this.members.find(({ key }) => key === name);
    return span && this.bytes.subarray(span.valueStart, span.valueEnd);
  }

  /** The member `name`, `undefined` without one. @throws QmpFramingError when it is not JSON */
  value(name: string): JsonValue | undefined {
    const raw = this.raw(name);
    return raw && parseJson(decodeText(raw));
  }

  /** Like `value`, for what people type: strings may be in single quotes, as QEMU takes them too. */
  lenientValue(name: string): JsonValue | undefined {
    const raw = this.raw(name);
    return raw && parseJson(inDoubleQuotes(decodeText(raw)));
  }
}

function parseJson(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue;
  } catch {
    throw new QmpFramingError("a message is not JSON");
  }
}

function inDoubleQuotes(text: string): string {
  if (!text.includes("'")) return text;
  return text.replace(/"(?:[^"\\]|\\.)*"|'((?:[^'\\]|\\.)*)'/gs, (whole, single: string | undefined) =>
    single === undefined ? whole : `"${single.replace(/\\.|"/gs, requote)}"`,
  );
}

function requote(token: string): string {
  if (token === '"') return '\\"';
  return token === "\\'" ? "'" : token;
}

/** White space between messages, or one whole message. */
export type Piece =
  | { readonly kind: "space"; readonly bytes: Uint8Array }
  | { readonly kind: "message"; readonly message: Message };

/**
 * Cuts a stream into messages, keeping every byte: the pieces joined are the stream. Holds at most one
 * unfinished message, of at most `bounds.bytes`.
 */
export class MessageReader {
  readonly #scanner: MessageScanner;
  #buffer = new Uint8Array(0);
  #held = 0;

  constructor(private readonly bounds: MessageBounds) {
    this.#scanner = new MessageScanner(bounds);
  }

  /**
   * The pieces that `chunk` completes; they may share its memory.
   *
   * @throws QmpFramingError, after the pieces before the fault; the reader is of no use then
   */
  *push(chunk: Uint8Array): Generator<Piece, void> {
    let start = 0;
    while (start < chunk.length) {
      if (this.#scanner.idle) {
        const space = start;
        while (start < chunk.length && isSpace(chunk[start] ?? 0)) start++;
        if (start > space) yield { kind: "space", bytes: chunk.subarray(space, start) };
        if (start === chunk.length) return;
      }
      const end = this.#scanner.scan(chunk, start);
      if (end < 0) {
        this.#hold(chunk.subarray(start));
        return;
      }
      const bytes = this.#take(chunk.subarray(start, end));
      start = end;
      yield { kind: "message", message: new Message(bytes, this.#scanner.members) };
    }
  }

  /** Copies: a reader must not keep the whole of a stream's buffer alive for a few bytes in it. */
  #hold(part: Uint8Array): void {
    const needed = this.#held + part.length;
    if (needed > this.#buffer.length) {
      const grown = new Uint8Array(
        Math.min(Math.max(needed, 2 * this.#buffer.length, 1024), this.bounds.bytes),
      );
      grown.set(this.#buffer.subarray(0, this.#held));
      this.#buffer = grown;
    }
    this.#buffer.set(part, this.#held);
    this.#held = needed;
  }

  #take(last: Uint8Array): Uint8Array {
    if (this.#held === 0) return last;
    this.#hold(last);
    const whole = this.#buffer.subarray(0, this.#held);
    this.#buffer = new Uint8Array(0);
    this.#held = 0;
    return whole;
  }
}

/** The members of what QEMU says, by their names. */
const answerNames = ["QMP", "return", "error", "id"];
const eventNames = ["event", "timestamp", "data"];

/**
 * Told by all names alike, and to the letter: libxl goes by the first that it knows, in whatever case and escapes, and what it
 * took for an event we must not take for an answer.
 */
function kindOf(members: readonly MemberSpan[]): "event" | "answer" {
  const names = members.map(({ key }) => key);
  // Of more than are remembered some are unknown.
  if (names.length < rememberedMembers) {
    if (names.some((name) => name !== "id") && names.every((name) => answerNames.includes(name)))
      return "answer";
    if (names.includes("event") && names.every((name) => eventNames.includes(name))) return "event";
  }
  throw new QmpFramingError(
    `a message of QEMU's is neither a reply nor an event, by its members ${names.map((name) => JSON.stringify(name)).join(", ") || "(none)"}`,
  );
}

/**
 * Follows QEMU's side of a connection without holding any of it: which messages end, and where lines begin.
 * QEMU puts each message on a line of its own, and libxl cuts what it reads into lines.
 */
export class LineScanner {
  readonly #scanner = new MessageScanner(replyBounds);
  #atStart = true;

  /** Whether the bytes so far end with a whole line. */
  get atStart(): boolean {
    return this.#atStart;
  }

  /**
   * @param onMessage called for each message that ends in `chunk`, before the end of its line is told; `greeting`
   *   and replies are `answer`s
   * @returns the index after each line that ends in `chunk`; to be asked for all of them
   * @throws QmpFramingError also for a message that is neither
   */
  *push(chunk: Uint8Array, onMessage: (kind: "event" | "answer") => void): Generator<number, void> {
    let index = 0;
    while (index >= 0 && index < chunk.length) {
      const value = chunk[index] ?? 0;
      if (this.#scanner.idle && isSpace(value)) {
        index++;
        this.#atStart = value === newline;
        if (this.#atStart) yield index;
        continue;
      }
      this.#atStart = false;
      index = this.#scanner.scan(chunk, index);
      if (index >= 0) onMessage(kindOf(this.#scanner.members));
    }
  }
}
