import * as native from "stubdom-native";
import { SystemError } from "../port.ts";

/** Throws what a native function reported as `-errno`. */
export function fail(result: number, call: string, operand: string | number): never {
  throw new SystemError(native.errorName(-result) ?? `E${-result}`, call, String(operand));
}

export function checked(result: number, call: string, operand: string | number): number {
  return result < 0 ? fail(result, call, operand) : result;
}

/** For calls that return something other than a number when they succeed. */
export function resultOf<T>(result: T | number, call: string, operand: string | number): T {
  return typeof result === "number" ? fail(result, call, operand) : result;
}
