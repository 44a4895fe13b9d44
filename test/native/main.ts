/**
 * The suite as a program: without an argument it prints the names of its tests, one a line; with a number it
 * runs that test and ends by itself, so that the leak checker looks at a program that let go of everything.
 */
import "../../agent/platform/quickjs/globals.ts";
import * as native from "stubdom-native";
import { equal, type Group, holds, list, throws } from "./harness.ts";
import { eventLoopTests } from "./suite/event-loop.ts";
import { fileTests } from "./suite/files.ts";
import { framebufferTests } from "./suite/framebuffer.ts";
import { processTests } from "./suite/process.ts";
import { socketTests } from "./suite/sockets.ts";
import { storageTests } from "./suite/storage.ts";
import { textTests } from "./suite/text.ts";
import { vchanTests } from "./suite/vchan.ts";

/** A global of main.c's, which the bundler puts in the place of `import()`. */
declare const loadModule: (name: string) => Promise<unknown>;

const groups: Record<string, Group> = {
  ...eventLoopTests,
  ...fileTests,
  ...processTests,
  ...socketTests,
  ...storageTests,
  ...textTests,
  ...vchanTests,
  ...framebufferTests,
  loadModule: {
    "what is not in the program": async () => {
      const refused = await loadModule("nowhere.js").catch((error: unknown) => error);
      holds(refused instanceof ReferenceError, String(refused));
    },
    "a name that does not convert": () =>
      throws(() => {
        void loadModule(Symbol("x") as unknown as string);
      }),
  },
  argv: {
    "is what the program was given": () => equal(native.argv.length, 2),
  },
  suite: {
    "has tests of every native function": () => {
      equal(
        Object.keys(native).filter((name) => !(name in groups)),
        [],
      );
    },
  },
};

const tests = Object.entries(groups).flatMap(([name, group]) =>
  Object.entries(group).map(([what, test]) => ({
    name: what.startsWith(name) ? what : `${name}: ${what}`,
    test,
  })),
);

/** Descriptors that are open; /proc/self/fd counts the one it is read through each time. */
const openDescriptors = () => list(native.readDirectory("/proc/self/fd")).length;

const [, number] = native.argv;
if (number === undefined) {
  console.log(tests.map(({ name }) => name).join("\n"));
} else {
  const chosen = tests[Number(number)];
  if (chosen === undefined) throw new Error(`no test ${number}`);
  const before = openDescriptors();
  await chosen.test();
  // The disk threads' eventfd lives as long as the program.
  const own = chosen.name.startsWith("submit") || chosen.name.startsWith("jobsReady") ? 1 : 0;
  if (openDescriptors() > before + own) throw new Error("descriptors were left open");
}
