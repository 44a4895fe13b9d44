/*
 * How a stub domain S that serves domain T and the helper in dom0 talk about state disks, version 1. Two
 * xenstore nodes, one value each, so that nothing of it can be seen half-written:
 *
 *     request    /local/domain/S/device-model/T/agent/state-disk       S's own; S and dom0 read it
 *                1 <number> save <bytes>      a disk to write a state of about so many bytes on
 *                1 <number> grow <bytes>      the disk must have at least so many bytes
 *                1 <number> commit <bytes>    a state of so many bytes is complete, the disk is closed
 *                1 <number> restore           a disk with the state to start from
 *                1 <number> release           the disk is not needed any more, whatever is on it
 *
 *     answer     /local/domain/0/linux-stubdom/S/answer                dom0's own; S reads it
 *                1 0 ready                                nothing asked yet: the helper is there
 *                1 <number> working <count>               at once, and again every few seconds
 *                1 <number> attached <device> <bytes>     save, restore: vbd number, size of the disk
 *                1 <number> grown <bytes>
 *                1 <number> placed <bytes>                the state lies where libxl reads it
 *                1 <number> released
 *                1 <number> refused <reason...>           and there is no disk any more
 *
 * The number is S's choice and differs from that of the request before; an answer repeats it. S asks one
 * thing at a time. Numbers are decimal, words are separated by one space. Who S and T are follows from the
 * path alone, and dom0 has checked that S serves T; no path and no domid is ever taken from a value.
 */

export const protocolVersion = 1;

export { stateDevice } from "./state-device.ts";

/** Longest request in bytes; what is longer is refused without a look. */
export const longestRequest = 128;
const longestReason = 300;
const largestNumber = 0xffff_ffff;

export const helperHome = "/local/domain/0/linux-stubdom";

export function requestNode(domid: number, target: number): string {
  return `/local/domain/${domid}/device-model/${target}/agent/state-disk`;
}

export function answerNode(domid: number): string {
  return `${helperHome}/${domid}/answer`;
}

export type Ask =
  | { readonly verb: "save" | "grow" | "commit"; readonly bytes: number }
  | { readonly verb: "restore" | "release" };

export type Request = Ask & { readonly number: number };

export type Reply =
  | { readonly outcome: "ready" }
  | { readonly outcome: "released" }
  | { readonly outcome: "working"; readonly count: number }
  | { readonly outcome: "attached"; readonly device: number; readonly bytes: number }
  | { readonly outcome: "grown"; readonly bytes: number }
  | { readonly outcome: "placed"; readonly bytes: number }
  | { readonly outcome: "refused"; readonly reason: string };

export type Answer = Reply & { readonly number: number };

export class RequestError extends Error {
  override readonly name = "RequestError";
  constructor(
    /** The request's number, where even that could be told. */
    readonly number: number,
    reason: string,
  ) {
    super(reason);
  }
}

export function formatRequest({ number, ...ask }: Request): string {
  const words = [protocolVersion, number, ask.verb];
  return ("bytes" in ask ? [...words, ask.bytes] : words).join(" ");
}

/** @throws RequestError; `text` is whatever a hostile stub domain wrote */
export function parseRequest(text: string): Request {
  if (text.length > longestRequest) throw new RequestError(0, `a request of ${text.length} characters`);
  const [version, numberWord, verb, ...rest] = text.split(" ");
  const number = decimal(numberWord, largestNumber) ?? 0;
  if (version !== String(protocolVersion)) {
    throw new RequestError(
      number,
      `protocol version ${shown(version)}, this helper speaks ${protocolVersion}`,
    );
  }
  if (number === 0) throw new RequestError(0, `request number ${shown(numberWord)}`);
  switch (verb) {
    case "save":
    case "grow":
    case "commit": {
      const bytes = decimal(rest[0], Number.MAX_SAFE_INTEGER);
      if (bytes === undefined || rest.length !== 1) {
        throw new RequestError(number, `${verb} wants one number of bytes, not ${shown(rest.join(" "))}`);
      }
      return { number, verb, bytes };
    }
    case "restore":
    case "release":
      if (rest.length > 0) throw new RequestError(number, `${verb} wants nothing after it`);
      return { number, verb };
    default:
      throw new RequestError(number, `unknown request ${shown(verb)}`);
  }
}

export function formatAnswer({ number, ...reply }: Answer): string {
  const words: (string | number)[] = [protocolVersion, number, reply.outcome];
  switch (reply.outcome) {
    case "working":
      words.push(reply.count);
      break;
    case "attached":
      words.push(reply.device, reply.bytes);
      break;
    case "grown":
    case "placed":
      words.push(reply.bytes);
      break;
    case "refused":
      words.push(reply.reason.slice(0, longestReason));
  }
  return words.join(" ");
}

/** `undefined` for what a helper of this version does not say. */
export function parseAnswer(text: string): Answer | undefined {
  const [version, numberWord, outcome, ...rest] = text.split(" ");
  const number = decimal(numberWord, largestNumber);
  if (version !== String(protocolVersion) || number === undefined) return undefined;
  const [first, second] = rest.map((word) => decimal(word, Number.MAX_SAFE_INTEGER));
  switch (outcome) {
    case "ready":
      return { number, outcome };
    case "released":
      return { number, outcome };
    case "working":
      return { number, outcome, count: first ?? 0 };
    case "attached":
      if (first === undefined || second === undefined) return undefined;
      return { number, outcome, device: first, bytes: second };
    case "grown":
      return first === undefined ? undefined : { number, outcome, bytes: first };
    case "placed":
      return first === undefined ? undefined : { number, outcome, bytes: first };
    case "refused":
      return { number, outcome, reason: rest.join(" ") };
    default:
      return undefined;
  }
}

function decimal(word: string | undefined, largest: number): number | undefined {
  if (word === undefined || !/^(0|[1-9]\d{0,15})$/.test(word)) return undefined;
  const value = Number(word);
  return value <= largest ? value : undefined;
}

function shown(word: string | undefined): string {
  return word === undefined ? "missing" : JSON.stringify(word.slice(0, 40));
}
