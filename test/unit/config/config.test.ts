import { readFileSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { parseCommandLine } from "../../../agent/config/command-line.ts";
import { documentedIni, keyOf, resolveConfig } from "../../../agent/config/config.ts";
import { type FieldName, fields } from "../../../agent/config/fields.ts";

describe("the kernel's command line", () => {
  test.each<[string, [string, string | undefined][]]>([
    ["", []],
    ["  \n", []],
    [
      "quiet ro\n",
      [
        ["quiet", undefined],
        ["ro", undefined],
      ],
    ],
    [
      "a=b  c=\td=e=f\n",
      [
        ["a", "b"],
        ["c", ""],
        ["d", "e=f"],
      ],
    ],
    [
      'a="b c" "d=e f" g="h"',
      [
        ["a", "b c"],
        ["d", "e f"],
        ["g", "h"],
      ],
    ],
    [
      'a="" b=x"y z"w "c',
      [
        ["a", ""],
        ["b", 'x"y z"w'],
        ["c", undefined],
      ],
    ],
    ['a="open b=c', [["a", "open b=c"]]],
    ["a -- b", [["a", undefined]]],
  ])("%j", (text, expected) => {
    expect(parseCommandLine(text).map(({ key, value }) => [key, value])).toEqual(expected);
  });
});

const defaults = Object.fromEntries(Object.entries(fields).map(([name, { fallback }]) => [name, fallback]));

describe("the configuration", () => {
  test("is the defaults without any setting, and cannot be changed", async () => {
    const { config, warnings } = await resolveConfig("quiet console=hvc0 shell=1", "");
    expect([config, warnings]).toEqual([defaults, []]);
    expect(Object.isFrozen(config)).toBe(true);
  });

  test("comes from the ini file, and before that from the command line", async () => {
    const ini = "; c\nloglevel = debug\nshell=true\n\nnet_joint = bridge ; why\nlate_notice=2.5\n";
    const { config, warnings } = await resolveConfig("stubdom.loglevel=WARN stubdom.disk-aio=threads", ini);
    expect(config).toEqual({
      ...defaults,
      loglevel: "warn",
      shell: true,
      netJoint: "bridge",
      lateNotice: 2500,
      diskAio: "threads",
    });
    expect(warnings).toEqual([]);
  });

  test("a bare word on the command line turns a switch on", async () => {
    expect((await resolveConfig("stubdom.shell", "")).config.shell).toBe(true);
    expect((await resolveConfig("stubdom.sandbox=off", "")).config.sandbox).toBe(false);
  });

  test("the last of several values counts", async () => {
    expect((await resolveConfig("stubdom.loglevel=debug stubdom.loglevel=error", "")).config.loglevel).toBe(
      "error",
    );
  });
});

describe("a wrong setting is named, and leaves what there was", () => {
  test.each([
    [
      "stubdom.loglevel=loud",
      "loglevel",
      "loud",
      'command line: "loud" is no value for loglevel; allowed: debug,',
    ],
    ["stubdom.shell=maybe", "shell", "maybe", "allowed: 1, on, yes, true or 0, off, no, false"],
    ["stubdom.qemu_deadline=1e9", "qemu_deadline", "1e9", "allowed: seconds, 0.1 to 600"],
    ["stubdom.qemu_deadline=0", "qemu_deadline", "0", "allowed: seconds"],
    ["stubdom.qemu_deadline=", "qemu_deadline", "", "allowed: seconds"],
    ["stubdom.qemu_deadline=601", "qemu_deadline", "601", "allowed: seconds"],
    ["stubdom.color=red", "color", "red", 'unknown setting "color"; known are loglevel,'],
    ["stubdom.__proto__=x", "__proto__", "x", "unknown setting"],
    ["stubdom.constructor", "constructor", "1", "unknown setting"],
    ["stubdom.=x", "", "x", "unknown setting"],
  ])("%s", async (commandLine, key, value, message) => {
    const { config, warnings } = await resolveConfig(commandLine, "");
    expect(config).toEqual(defaults);
    expect(warnings).toHaveLength(1);
    expect(warnings[0]).toMatchObject({ source: "command line", key, value });
    expect(warnings[0]?.message).toContain(message);
  });

  test("shortened, when it is long", async () => {
    const { warnings } = await resolveConfig(
      `stubdom.shell=${"x".repeat(5000)} stubdom.${"y".repeat(5000)}`,
      "",
    );
    expect(warnings).toHaveLength(2);
    for (const { message } of warnings) expect(message.length).toBeLessThan(400);
  });

  test("in the ini file, where the command line may still be right", async () => {
    const { config, warnings } = await resolveConfig(
      "stubdom.loglevel=debug",
      "loglevel=loud\nlist[]=1\n[section]\nshell=on\n",
    );
    expect(config).toEqual({ ...defaults, loglevel: "debug" });
    expect(warnings.map(({ key, source }) => [key, source])).toEqual([
      ["loglevel", "stubdom.ini"],
      ["list", "stubdom.ini"],
      ["section", "stubdom.ini"],
    ]);
  });

  test.each([
    "\0\u0001",
    "=",
    "[",
    "]=[",
    "a\\",
    '"',
    "[__proto__]\nx=1",
    "x".repeat(100_000),
    "\ufffd=\ufffd",
  ])("no text whatever throws: %#", async (text) => {
    expect((await resolveConfig(text, text)).config).toEqual(defaults);
    expect((await resolveConfig(`stubdom.${text}`, "")).config).toEqual(defaults);
  });
});

describe("/etc/stubdom.ini in the image", () => {
  const image = readFileSync("rootfs-overlay/etc/stubdom.ini", "utf8");

  test("says what the table says", () => {
    expect(image).toBe(documentedIni());
  });

  test("changes nothing as it is, and repeats the defaults when uncommented", async () => {
    expect(await resolveConfig("", image)).toEqual({ config: defaults, warnings: [] });
    expect(await resolveConfig("", image.replace(/^;(?=\S)/gm, ""))).toEqual({
      config: defaults,
      warnings: [],
    });
  });

  test("every default is written as it is read", () => {
    for (const [name, field] of Object.entries(fields)) {
      expect(field.parse(field.write(field.fallback as never)), keyOf(name as FieldName)).toEqual(
        field.fallback,
      );
    }
  });
});
