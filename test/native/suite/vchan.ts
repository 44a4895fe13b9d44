import * as native from "stubdom-native";
import {
  clientReceive,
  clientSend,
  clientState,
  collect,
  failListen,
  vchanIsBlocking,
  vchanOpen,
} from "test-native";
import { equal, errno, type Group, holds, ready, refusals, text, throws } from "../harness.ts";

function listen(): native.Vchan {
  const vchan = native.vchanListen(0, "/local/domain/1/data/vchan");
  if (typeof vchan === "number") throw new Error(`vchanListen: ${vchan}`);
  return vchan;
}

/** Objects of other classes, whose insides must stay as they are. */
function strangers(): object[] {
  return [{}, [1, 2], new Map([[1, 2]]), new Uint8Array(4), new Date(0), /x/, () => 1, Promise.resolve()];
}

function alive(stranger: object): void {
  if (Array.isArray(stranger)) equal(stranger, [1, 2]);
  else if (stranger instanceof Map) equal(stranger.get(1), 2);
  else if (stranger instanceof Uint8Array) equal(stranger.length, 4);
  else if (stranger instanceof Date) equal(stranger.getTime(), 0);
  else if (stranger instanceof RegExp) equal(stranger.test("x"), true);
  else if (typeof stranger === "function") equal((stranger as () => number)(), 1);
}

/** `call` throws for whatever is no open ring, and leaves it alone. */
export function onlyFor(
  make: () => unknown,
  closeIt: (one: unknown) => void,
  call: (one: unknown) => unknown,
): Group {
  return {
    "refuses what is none": () => {
      for (const wrong of [undefined, null, 5, "x", Symbol("x")]) throws(() => call(wrong));
      for (const stranger of strangers()) {
        throws(() => call(stranger));
        alive(stranger);
      }
    },
    "refuses a closed one": () => {
      const one = make();
      closeIt(one);
      throws(() => call(one));
    },
  };
}

const ring = (call: (vchan: native.Vchan) => unknown) =>
  onlyFor(
    listen,
    (one) => native.vchanClose(one as native.Vchan),
    (one) => call(one as native.Vchan),
  );

/** Closing ignores or refuses what it cannot close, and leaves it as it was. */
export function harmlessFor(closeIt: (one: unknown) => unknown): Group {
  return {
    "leaves alone what is none": () => {
      for (const wrong of [undefined, null, 5, "x", Symbol("x"), ...strangers()]) {
        try {
          closeIt(wrong);
        } catch (error) {
          holds(error instanceof TypeError, String(error));
        }
        if (typeof wrong === "object" && wrong !== null) alive(wrong);
      }
    },
  };
}

export const vchanTests: Record<string, Group> = {
  holdDevices: {
    "names the device by a descriptor, where there is one": () => {
      const result = native.holdDevices();
      const path = native.environment("XENSTORED_PATH");
      if (result === errno.ENOENT) equal(path, undefined);
      else equal([result, /^\/proc\/self\/fd\/\d+$/.test(path ?? "")], [0, true]);
    },
  },
  vchanListen: {
    ...refusals("vchanListen", native.vchanListen, "integer", "text"),
    "reports why it cannot": () => {
      failListen(13);
      equal(native.vchanListen(0, "x"), errno.EACCES);
      failListen(-1);
      equal(native.vchanListen(0, "x"), -5);
    },
    "never blocks": () => {
      const vchan = listen();
      equal(vchanIsBlocking(), false);
      native.vchanClose(vchan);
    },
    "a forgotten ring is closed by the collector": () => {
      listen();
      collect();
      equal(vchanOpen(), false);
    },
  },
  vchanDescriptor: {
    ...ring(native.vchanDescriptor),
    "is ready when the client notified": async () => {
      const vchan = listen();
      clientSend(text("x"));
      await ready(native.vchanDescriptor(vchan));
      native.vchanClose(vchan);
    },
  },
  vchanAcknowledge: {
    ...ring(native.vchanAcknowledge),
    "whether something is pending or not": () => {
      const vchan = listen();
      equal(native.vchanAcknowledge(vchan), 0);
      clientState(1);
      equal([native.vchanAcknowledge(vchan), native.vchanAcknowledge(vchan)], [0, 0]);
      native.vchanClose(vchan);
    },
  },
  vchanState: {
    ...ring(native.vchanState),
    "waiting, connected, closed": () => {
      const vchan = listen();
      equal(native.vchanState(vchan), 2);
      clientState(1);
      equal(native.vchanState(vchan), 1);
      clientState(0);
      equal(native.vchanState(vchan), 0);
      native.vchanClose(vchan);
    },
  },
  vchanRead: {
    ...ring((vchan) => native.vchanRead(vchan, new Uint8Array(4))),
    "what there is, into its place": () => {
      const vchan = listen();
      clientState(1);
      const bytes = new Uint8Array(8).fill(0x2e);
      equal(native.vchanRead(vchan, bytes), 0);
      equal(clientSend(text("abcdef")), 6);
      equal(native.vchanRead(vchan, bytes.subarray(3, 5)), 2);
      equal(native.decodeText(bytes), "...ab...");
      equal(native.vchanRead(vchan, new Uint8Array(0)), 0);
      equal(native.vchanRead(vchan, bytes), 4);
      clientState(0);
      equal(native.vchanRead(vchan, bytes), errno.EPIPE);
      native.vchanClose(vchan);
    },
    "needs bytes": () => {
      const vchan = listen();
      for (const wrong of [null, 5, {}, new ArrayBuffer(4)])
        throws(() => native.vchanRead(vchan, wrong as Uint8Array));
      native.vchanClose(vchan);
    },
  },
  vchanWrite: {
    ...ring((vchan) => native.vchanWrite(vchan, new Uint8Array(4))),
    "as much as fits": () => {
      const vchan = listen();
      clientState(1);
      equal(native.vchanWrite(vchan, text("abcdef").subarray(1, 3)), 2);
      equal(native.decodeText(new Uint8Array(clientReceive())), "bc");
      equal(native.vchanWrite(vchan, new Uint8Array(1000)), 64);
      equal(native.vchanWrite(vchan, new Uint8Array(1000)), 0);
      equal(native.vchanWrite(vchan, new Uint8Array(0)), 0);
      clientState(0);
      equal(native.vchanWrite(vchan, new Uint8Array(1)), errno.EPIPE);
      native.vchanClose(vchan);
    },
    "needs bytes": () => {
      const vchan = listen();
      for (const wrong of [null, 5, {}, new ArrayBuffer(4)])
        throws(() => native.vchanWrite(vchan, wrong as Uint8Array));
      native.vchanClose(vchan);
    },
  },
  vchanClose: {
    ...harmlessFor((one) => native.vchanClose(one as native.Vchan)),
    "closes, twice too": () => {
      const vchan = listen();
      native.vchanClose(vchan);
      equal(vchanOpen(), false);
      native.vchanClose(vchan);
    },
    "leaves a pixel source alone": () => {
      const pixels = native.pixelsOpen(0);
      try {
        native.vchanClose(pixels as unknown as native.Vchan);
      } catch (error) {
        holds(error instanceof TypeError, String(error));
      }
      native.pixelsClose(pixels as native.Pixels);
    },
  },
};
