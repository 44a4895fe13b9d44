/**
 * The few globals of the web platform that our packages expect and QuickJS lacks. Imported for its effect,
 * before anything else.
 */
import * as native from "stubdom-native";

class NativeTextEncoder {
  encode(text: string): Uint8Array {
    return new Uint8Array(native.encodeText(text));
  }
}

class NativeTextDecoder {
  decode(bytes: Uint8Array): string {
    return native.decodeText(bytes);
  }
}

/** Writes whole lines to a descriptor: for the command line, whose output may block. */
function printTo(fd: number): (...values: unknown[]) => void {
  return (...values) => {
    let rest: Uint8Array = new Uint8Array(native.encodeText(`${values.map(String).join(" ")}\n`));
    while (rest.length > 0) {
      const count = native.write(fd, rest);
      if (count <= 0) return;
      rest = rest.subarray(count);
    }
  };
}

Object.assign(globalThis, {
  TextEncoder: NativeTextEncoder,
  TextDecoder: NativeTextDecoder,
  console: { log: printTo(1), info: printTo(1), warn: printTo(2), error: printTo(2), debug: printTo(2) },
});
