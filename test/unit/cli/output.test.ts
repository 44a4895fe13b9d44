/** What commands print: much of it is QEMU's words, and root's terminal reads it. */
import { describe, expect, test } from "vitest";
import type { Command } from "../../../agent/cli/command.ts";
import { argv } from "../../../agent/cli/commands/argv.ts";
import { devices } from "../../../agent/cli/commands/devices.ts";
import { inspect } from "../../../agent/cli/commands/dom0-inspect.ts";
import { dom0Status } from "../../../agent/cli/commands/dom0-status.ts";
import { log } from "../../../agent/cli/commands/log.ts";
import { qmp } from "../../../agent/cli/commands/qmp.ts";
import { status } from "../../../agent/cli/commands/status.ts";
import { xenstore } from "../../../agent/cli/commands/xenstore.ts";
import { printableJson } from "../../../agent/log/format.ts";

const evil = "a\u001b[2J\u009b31m\u007f\rb\nphase running";
const words: readonly [string, Command, unknown][] = [
  [
    "status",
    status,
    {
      version: evil,
      domid: 2,
      phase: evil,
      phases: [],
      qemu: {},
      memory: {},
      screen: undefined,
      error: evil,
    },
  ],
  ["devices", devices, [{ kind: "vbd", name: evil, detail: evil }]],
  ["argv", argv, { libxl: [evil], qemu: [evil] }],
  ["log", log, [evil]],
  ["xenstore ls", xenstore, [{ path: `/${evil}`, value: evil }]],
  ["xenstore read", xenstore, evil],
  ["qmp", qmp, { [evil]: [evil] }],
  ["dom0 inspect", inspect, { fault: evil, header: { qemuVersion: evil } }],
  [
    "dom0 status",
    dom0Status,
    {
      running: true,
      version: "1",
      domains: [{ domid: 2, target: 1, guest: evil, request: evil, answer: evil }],
    },
  ],
];

describe("no control character of others', and no line of theirs", () => {
  test.each(words)("%s", (_, command, result) => {
    const text = command.render(result);
    expect(text).toContain("phase running");
    // biome-ignore lint/suspicious/noControlCharactersInRegex: these are looked for
    expect(text).not.toMatch(/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
    expect(text).not.toMatch(/^phase running/m);
  });
});

test("JSON is what it was, without them", () => {
  const text = printableJson({ [evil]: evil });
  expect(text).toMatch(/^[\x20-\x7e]*$/);
  expect(JSON.parse(text)).toEqual({ [evil]: evil });
});
