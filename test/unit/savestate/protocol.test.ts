import { expect, test } from "vitest";
import {
  type Answer,
  formatAnswer,
  formatRequest,
  parseAnswer,
  parseRequest,
  type Request,
  RequestError,
} from "../../../agent/savestate/protocol.ts";
import { Random } from "../../fakes/random.ts";

const requests: [string, Request][] = [
  ["1 7 save 1048576", { number: 7, verb: "save", bytes: 1048576 }],
  ["1 8 grow 0", { number: 8, verb: "grow", bytes: 0 }],
  ["1 4294967295 commit 9007199254740991", { number: 4294967295, verb: "commit", bytes: 9007199254740991 }],
  ["1 9 restore", { number: 9, verb: "restore" }],
  ["1 10 release", { number: 10, verb: "release" }],
];
test.each(requests)("request %s", (text, request) => {
  expect(formatRequest(request)).toBe(text);
  expect(parseRequest(text)).toEqual(request);
});

const answers: [string, Answer][] = [
  ["1 0 ready", { number: 0, outcome: "ready" }],
  ["1 7 working 3", { number: 7, outcome: "working", count: 3 }],
  ["1 7 attached 268614912 16777216", { number: 7, outcome: "attached", device: 268614912, bytes: 16777216 }],
  ["1 8 grown 33554432", { number: 8, outcome: "grown", bytes: 33554432 }],
  ["1 9 placed 65536", { number: 9, outcome: "placed", bytes: 65536 }],
  ["1 10 released", { number: 10, outcome: "released" }],
  ["1 11 refused no room, none at all", { number: 11, outcome: "refused", reason: "no room, none at all" }],
];
test.each(answers)("answer %s", (text, answer) => {
  expect(formatAnswer(answer)).toBe(text);
  expect(parseAnswer(text)).toEqual(answer);
});

const malformed: [string, number, RegExp][] = [
  ["", 0, /protocol version ""/],
  ["2 7 save 1", 7, /protocol version "2", this helper speaks 1/],
  ["1", 0, /request number missing/],
  ["1 0 save 1", 0, /request number "0"/],
  ["1 -1 save 1", 0, /request number/],
  ["1 4294967296 restore", 0, /request number/],
  ["1 5", 5, /unknown request missing/],
  ["1 5 erase", 5, /unknown request "erase"/],
  ["1 5 save", 5, /save wants one number/],
  ["1 5 save 1 /etc/passwd", 5, /save wants one number/],
  ["1 5 save 0x10", 5, /save wants one number/],
  ["1 5 save 1e9", 5, /save wants one number/],
  ["1 5 grow 99999999999999999", 5, /grow wants one number/],
  ["1 5 restore ../../x", 5, /restore wants nothing/],
  ["1  5 restore", 0, /request number ""/],
  ["x".repeat(129), 0, /a request of 129 characters/],
];
test.each(malformed)("malformed request %j", (text, number, message) => {
  try {
    parseRequest(text);
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(RequestError);
    expect((error as RequestError).number).toBe(number);
    expect((error as RequestError).message).toMatch(message);
  }
});

test("whatever a stub domain writes is a request or a RequestError", () => {
  const random = new Random(5);
  const words = [
    "1",
    "2",
    "7",
    "save",
    "grow",
    "commit",
    "restore",
    "release",
    "",
    "\0",
    "\u{1f600}",
    "/",
    "-",
    "9".repeat(40),
  ];
  for (let i = 0; i < 20_000; i++) {
    const text = Array.from(
      { length: random.between(0, 6) },
      () => words[random.between(0, words.length - 1)],
    ).join(" ");
    try {
      expect(formatRequest(parseRequest(text))).toBe(text);
    } catch (error) {
      expect(error).toBeInstanceOf(RequestError);
      expect((error as Error).message.length).toBeLessThan(200);
    }
  }
});
