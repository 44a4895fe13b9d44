import { describe, expect, test } from "vitest";
import { concatBytes } from "../../../agent/bytes/bytes.ts";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { QmpFramingError } from "../../../agent/qmp/errors.ts";
import { LineScanner, MessageReader, type Piece } from "../../../agent/qmp/framing.ts";
import { Random } from "../../fakes/random.ts";

const bounds = { bytes: 200, depth: 4 };

function read(text: string | Uint8Array, cuts: readonly number[] = [], limits = bounds): Piece[] {
  const bytes = typeof text === "string" ? encodeText(text) : text;
  const reader = new MessageReader(limits);
  const pieces: Piece[] = [];
  let start = 0;
  for (const cut of [...cuts, bytes.length]) {
    for (const piece of reader.push(bytes.subarray(start, cut))) pieces.push(piece);
    start = cut;
  }
  return pieces;
}

const bytesOf = (piece: Piece) => (piece.kind === "space" ? piece.bytes : piece.message.bytes);
const messagesOf = (pieces: readonly Piece[]) =>
  pieces.flatMap((piece) => (piece.kind === "message" ? [decodeText(piece.message.bytes)] : []));

describe("a stream of messages", () => {
  const messages = [
    "{}",
    '{"execute": "query-status"}',
    '{"execute":"a","arguments":{"x":[1,{"y":"}]\\"{"}]},"id":"\\\\"}',
    "{'execute': 'b', 'id': 'it\\'s \"so\"'}",
    '{"\\u0022": "}", "": {}}',
    '{"a": "\u00e4\u20ac\u{1f600}", "b" : [ ] }',
  ];
  const between = [" ", "\r\n", "", "\t\n \r\n", "\n", ""];
  const stream = messages.map((message, index) => between[index] + message).join("");

  test("is cut into them, whole", () => {
    const pieces = read(stream);
    expect(messagesOf(pieces)).toEqual(messages);
    expect(decodeText(concatBytes(pieces.map(bytesOf)))).toBe(stream);
  });

  test("is cut the same wherever it is split", () => {
    const length = encodeText(stream).length;
    const byByte = Array.from({ length }, (_, index) => index);
    expect(messagesOf(read(stream, byByte))).toEqual(messages);
    const random = new Random(7);
    for (let round = 0; round < 200; round++) {
      const cuts = [random.between(0, length), random.between(0, length)].sort((a, b) => a - b);
      const pieces = read(stream, cuts);
      expect(messagesOf(pieces)).toEqual(messages);
      expect(decodeText(concatBytes(pieces.map(bytesOf)))).toBe(stream);
    }
  });

  test("keeps bytes that are not UTF-8", () => {
    const bytes = Uint8Array.of(...encodeText('{"id": "'), 0xff, 0x80, ...encodeText('"}'));
    expect(read(bytes, [9]).map(bytesOf)).toEqual([bytes]);
  });

  test("keeps an unfinished message to itself", () => {
    expect(read('{"a": 1} {"b": ').map(({ kind }) => kind)).toEqual(["message", "space"]);
  });
});

describe("members", () => {
  const first = (text: string) => {
    const piece = read(text)[0];
    if (piece?.kind !== "message") throw new Error("no message");
    return piece.message;
  };

  test("are found in the outermost object only, with the bytes of their values", () => {
    const message = first('{ "x" : {"id": 1} , "id" : [ 1, "}" ] , "execute":"run" }');
    expect(decodeText(message.raw("id") ?? new Uint8Array())).toBe('[ 1, "}" ]');
    expect(message.value("execute")).toBe("run");
    expect(message.raw("none")).toBeUndefined();
  });

  test("are not found under a key with an escape in it", () => {
    expect(first('{"i\\nd": 1}').raw("id")).toBeUndefined();
    expect(first('{"\\id": 1}').raw("id")).toBeUndefined();
  });

  test("a string in the place of a value is not taken for a key", () => {
    expect(first('{"a": "id", "b": "execute"}').raw("id")).toBeUndefined();
  });

  test.each([
    [`{'id': 'it\\'s "so"'}`, `it's "so"`],
    [`{"id": "it's"}`, "it's"],
    [`{'id': 'a\\\\\\"b'}`, 'a\\"b'],
    [`{'id': ''}`, ""],
  ])("in single quotes: %s", (text, value) => {
    expect(first(text).lenientValue("id")).toBe(value);
  });

  test("that are no JSON are refused when looked at", () => {
    expect(() => first('{"id": nonsense}').value("id")).toThrow(QmpFramingError);
  });
});

describe("bytes that are no messages", () => {
  test.each([
    ["xx", 'a message begins with "x"'],
    ["[]", 'a message begins with "["'],
    ["\u0001", "a message begins with byte 0x1"],
    ['{"a": [}', "closes nothing"],
    ['{"a": 1]', "closes nothing"],
    ["{[[[[", "nests deeper than 4 levels"],
    [`{"a": "${"x".repeat(300)}"}`, "no end within 200 bytes"],
  ])("%s", (text, problem) => {
    expect(() => read(text)).toThrow(problem);
    const everyByte = Array.from(encodeText(text).keys());
    expect(() => read(text, everyByte)).toThrow(QmpFramingError);
  });

  test("come after the messages before them", () => {
    const reader = new MessageReader(bounds);
    const pieces = reader.push(encodeText('{"a": 1}?'));
    expect(pieces.next().value?.kind).toBe("message");
    expect(() => pieces.next()).toThrow(QmpFramingError);
  });

  test("a message of exactly the bound passes, in any pieces", () => {
    const text = `{"a": "${"x".repeat(200 - 9)}"}`;
    expect(text.length).toBe(200);
    expect(messagesOf(read(text))).toEqual([text]);
    expect(messagesOf(read(text, [1, 50, 199]))).toEqual([text]);
  });
});

test("lines of QEMU's are followed without holding them", () => {
  const stream = '{"QMP": {}}\r\n{"return": {}, "id": "\\n"}\r\n{"timestamp": {}, "event": "STOP"}\r\n{"err';
  const bytes = encodeText(stream);
  for (let cut = 0; cut <= bytes.length; cut++) {
    const scanner = new LineScanner();
    const kinds: string[] = [];
    const note = (kind: string) => kinds.push(kind);
    const ends = [...scanner.push(bytes.subarray(0, cut), note)];
    const rest = [...scanner.push(bytes.subarray(cut), note)];
    expect(
      [...ends, ...rest.map((end) => end + cut)].map((end) => stream.slice(0, end).split("\n").length),
    ).toEqual([2, 3, 4]);
    expect(kinds).toEqual(["answer", "answer", "event"]);
    expect(scanner.atStart).toBe(false);
  }
});

test("what is neither a reply nor an event to the letter is no message of QEMU's", () => {
  for (const text of [
    '{"EVENT": "X"}',
    '{"\\u0065vent": "X"}',
    '{"return": {}, "event": "X"}',
    '{"a": 1, "b": 1, "c": 1, "d": 1, "e": 1, "f": 1, "g": 1, "h": 1, "event": "X"}',
    '{"id": 1}',
    '{"timestamp": {}}',
    "{}",
  ]) {
    expect(() => [...new LineScanner().push(encodeText(`${text}\r\n`), () => {})], text).toThrow(
      QmpFramingError,
    );
  }
});

test("any bytes give the same pieces and the same fault, however they are split", () => {
  const alphabet = "{{{}}}[]\"\"''\\\\::,,eid \n\u0001";
  const random = new Random(11);
  const outcome = (text: string, cuts: readonly number[]) => {
    const bytes = encodeText(text);
    const reader = new MessageReader({ bytes: 24, depth: 3 });
    const seen: string[] = [];
    try {
      let start = 0;
      for (const cut of [...cuts, bytes.length]) {
        for (const piece of reader.push(bytes.subarray(start, cut))) {
          if (piece.kind === "space") continue;
          const { message } = piece;
          seen.push(decodeText(message.bytes), ...["id", "e", "d"].map((key) => `${message.raw(key)}`));
        }
        start = cut;
      }
    } catch (error) {
      seen.push(String(error));
    }
    return seen;
  };
  for (let round = 0; round < 5000; round++) {
    const length = random.between(1, 40);
    const text = `{${Array.from({ length }, () => alphabet[random.between(0, alphabet.length - 1)]).join("")}`;
    const cuts = Array.from({ length: 3 }, () => random.between(0, length)).sort((a, b) => a - b);
    const whole = outcome(text, []);
    expect(outcome(text, cuts), text).toEqual(whole);
    expect(
      outcome(
        text,
        [...text].map((_, index) => index),
      ),
      text,
    ).toEqual(whole);
  }
});
