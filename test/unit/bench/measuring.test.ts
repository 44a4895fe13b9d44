/** The measuring itself, on a dom0 that is a script: what is asked of it, in which order, and what is made of it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type Bench,
  clearUp,
  measureDensity,
  measureOnce,
  measureSave,
  measureScreen,
} from "../../../scripts/bench/measuring.ts";
import { processScript } from "../../../scripts/bench/readings.ts";
import { isAbsent, Recorder } from "../../../scripts/bench/results.ts";
import { settingsOf } from "../../../scripts/bench/settings.ts";
import { EXIT, RemoteProcess, STDOUT } from "../../../scripts/lab/channel.ts";
import { XenHost } from "../../../scripts/lab/xen-host.ts";
import { about } from "./example.ts";

/** dom0 with an xl that knows one thing: which guests there are. */
class ScriptedHost extends XenHost {
  override readonly log = "";
  readonly guests = new Set<string>();
  readonly asked: string[] = [];
  /** What guests say when they run. */
  console: readonly string[] = [];
  /** `xl create` fails. */
  broken = false;
  #seconds = 0;
  readonly #consoles: RemoteProcess[] = [];

  override get guestFaults(): readonly string[] {
    return [];
  }

  override async stop(): Promise<void> {
    for (const each of this.#consoles) each.receive(EXIT, Buffer.from('{"code":0}'));
  }

  override spawn(command: string | readonly string[]): RemoteProcess {
    const words = typeof command === "string" ? [command] : command;
    const text = words.join(" ");
    // Whatever is typed has the guest draw.
    const process = new RemoteProcess(() => {
      setImmediate(() => process.receive(STDOUT, Buffer.from("drawn\n")));
    });
    if (text.includes("xl console")) {
      this.#consoles.push(process);
      setImmediate(() => process.receive(STDOUT, Buffer.from(`${this.console.join("\n")}\n`)));
      return process;
    }
    this.asked.push(words[0] === "xl" ? text : text.slice(0, 30));
    const { status, output } = this.#answer(words);
    setImmediate(() => {
      process.receive(STDOUT, Buffer.from(output));
      process.receive(EXIT, Buffer.from(JSON.stringify({ code: status })));
    });
    return process;
  }

  #tick(seconds: number): number {
    this.#seconds += seconds;
    return this.#seconds;
  }

  #answer(words: readonly string[]): { status: number; output: string } {
    const [program, verb, ...rest] = words;
    const done = (output = "") => ({ status: 0, output });
    if (words[0] === processScript) {
      const models = [...this.guests].map(
        (_, index) => `${100 + index} 20480 ${1000 * this.#tick(1)} qemu\n`,
      );
      return done(`1 500 10 init\n${models.join("")}90 70 1 xl\n`);
    }
    if (words[0] === "xl info") return done(`free_memory : ${4000 - 100 * this.guests.size}\n`);
    if (words[0] === "xl list") {
      const lines = [...this.guests].map((name, index) => `${name} ${index + 1} 64 1 -b---- 1.0`);
      return done(
        `Name ID Mem VCPUs State Time(s)\nDomain-0 0 1024 1 r----- ${this.#tick(3)}.0\n${lines.join("\n")}\n`,
      );
    }
    if (words[3] === "change") return done('{"milliseconds":[30,null,10,20]}\n');
    if (words[3] === "rate") return done('{"updates":4,"pixels":960000,"seconds":2}\n');
    if (program !== "xl") {
      for (const name of words[0]?.includes("xl destroy") ? [...this.guests] : []) this.guests.delete(name);
      return done();
    }
    const name =
      verb === "create"
        ? (/\/root\/([^/]+)\/guest\.cfg/.exec(rest.at(-1) ?? "")?.[1] ?? "")
        : (rest[0] ?? "");
    if (verb === "create" && this.broken) return { status: 3, output: "no" };
    if (verb === "create" || verb === "restore")
      this.guests.add(verb === "restore" ? "stubdom-bench-saved" : name);
    if (verb === "destroy" || verb === "save") this.guests.delete(name);
    return done(verb === "domid" ? "1\n" : "");
  }
}

let host: ScriptedHost;
let recorder: Recorder;
let bench: Bench;
let directory: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "stubdom-measuring-"));
  const image = join(directory, "disk.img");
  writeFileSync(image, "");
  host = new ScriptedHost();
  recorder = new Recorder();
  const settings = settingsOf({ quick: false, minios: false, icount: false });
  bench = {
    host,
    recorder,
    settings: { ...settings, patience: 5 },
    disk: async () => image,
    screen: async () => image,
  };
});

afterEach(async () => {
  await host.stop();
  rmSync(directory, { recursive: true });
});

const median = (id: string) => {
  const figure = recorder.results(about).figures[id]?.dom0;
  return figure === undefined || isAbsent(figure) ? figure?.absent : figure.median;
};

describe("one round", () => {
  const said = [
    "guest: up 1.5",
    "guest: probe port port ns=2100000 count=100 p50=20000 p90=21000 p99=22000 max=23000",
    "guest: probe seq-read disk ns=1000000000 bytes=3000000 count=5 p50=1 p90=2 p99=3 max=4",
    "guest: probe none cpu ns=1 count=1",
    "guest: ready",
  ];

  test("makes figures of what the guest, xl and the processes say, and leaves nothing", async () => {
    host.console = said.filter((line) => !line.includes("none"));
    await measureOnce(bench, "dom0", 0);
    expect(median("access.port")).toBe(20);
    expect(median("disk.seq-read")).toBe(3);
    expect(median("resources.dom0")).toBe(20);
    expect(median("resources.image")).toBe(0);
    // 3 s between two looks of xl list, over 60 s.
    expect(median("idle.dom0")).toBe(50);
    expect(median("idle.switches")).toBeGreaterThan(0);
    expect(median("start.up")).toBeGreaterThanOrEqual(0);
    expect(median("start.agent")).toBe("there is no stub domain");
    expect([...host.guests]).toEqual([]);
    expect(host.asked).toContain("xl destroy stubdom-bench-0");
  });

  test("measures only the groups that were asked for", async () => {
    host.console = said.filter((line) => !line.includes("none"));
    bench = { ...bench, settings: { ...bench.settings, groups: ["start"] } };
    await measureOnce(bench, "dom0", 1);
    expect(Object.keys(recorder.results(about).figures)).toEqual([
      "start.create",
      "start.agent",
      "start.qemu",
      "start.serial",
      "start.up",
    ]);
  });

  test("that breaks rejects with the reason, and its guest is gone", async () => {
    host.console = [...said.slice(0, 1), "guest: probe port port failed iopl errno=1", "guest: ready"];
    await expect(measureOnce(bench, "dom0", 0)).rejects.toThrow(/port failed iopl errno=1/);
    expect([...host.guests]).toEqual([]);
    host.broken = true;
    await expect(measureOnce(bench, "dom0", 0)).rejects.toThrow(/exit status 3/);
    host.guests.add("stubdom-bench-7");
    await clearUp(host);
    expect([...host.guests]).toEqual([]);
  });
});

test("several guests at once: the slope of the host's memory, and all are destroyed", async () => {
  host.console = ["guest: up 1"];
  await measureDensity(bench, "dom0");
  expect(median("density.memory")).toBeCloseTo(100, 9);
  expect([...host.guests]).toEqual([]);
  expect(host.asked.filter((text) => text.startsWith("xl create"))).toHaveLength(1 + 2 + 4 + 8);
});

test("save and restore", async () => {
  host.console = ["guest: beat 1"];
  await measureSave(bench, "dom0");
  expect(median("save.save")).toBeGreaterThanOrEqual(0);
  expect(median("save.restore")).toBeGreaterThanOrEqual(0);
  expect(median("save.console-save")).toMatch(/the one way/);
  expect([...host.guests]).toEqual([]);
});

test("the screen: changes that came whole, and what an update weighs", async () => {
  host.console = ["ready"];
  await measureScreen(bench, "dom0");
  expect(median("screen.change")).toBe(20);
  expect(median("screen.rate")).toBe(1);
  expect(median("screen.update")).toBe(960);
  expect([...host.guests]).toEqual([]);
  await measureScreen(bench, "shell-stubdom");
  expect(recorder.results(about).figures["screen.rate"]?.["shell-stubdom"]).toMatchObject({
    absent: expect.stringContaining("screen"),
  });
});
