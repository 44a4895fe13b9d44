/** The measuring itself, on a dom0 that is a script: what is asked of it, in which order, and what is made of it. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import {
  type Bench,
  clearUp,
  markBroken,
  markNever,
  measureDensity,
  measureOnce,
  measureSave,
  measureScreen,
} from "../../../scripts/bench/measuring.ts";
import { processScript } from "../../../scripts/bench/readings.ts";
import { isAbsent, Recorder } from "../../../scripts/bench/results.ts";
import { settingsOf } from "../../../scripts/bench/settings.ts";
import { VARIANT_NAMES, type VariantName } from "../../../scripts/bench/variants.ts";
import { DATA, EOF, EXIT, RemoteProcess, STDOUT } from "../../../scripts/lab/channel.ts";
import { XenHost } from "../../../scripts/lab/xen-host.ts";
import { about } from "./example.ts";

/** dom0 with an xl that knows one thing: which guests there are. */
class ScriptedHost extends XenHost {
  override readonly log = "";
  readonly guests = new Set<string>();
  readonly asked: string[] = [];
  /** What guests say when they run. */
  console: readonly string[] = [];
  /** What they say to whatever is typed. */
  answer = "drawn";
  /** Guests have another domid each time that they are listed. */
  reborn = false;
  /** `xl create` fails. */
  broken = false;
  /** So does one guest more than so many. */
  most = 100;
  /** dom0's hvmloader holds one. */
  rombios = true;
  /** What was copied into dom0. */
  readonly files = new Map<string, string>();
  #seconds = 0;
  #uptime = 0;
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
    if (words[3] === "push") return this.#pushed(words[4] ?? "");
    const process = new RemoteProcess(() => {
      setImmediate(() => process.receive(STDOUT, Buffer.from(`${this.answer}\n`)));
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

  #pushed(path: string): RemoteProcess {
    this.files.set(path, "");
    const process = new RemoteProcess((type, payload) => {
      if (type === DATA) this.files.set(path, `${this.files.get(path)}${payload}`);
      if (type === EOF) setImmediate(() => process.receive(EXIT, Buffer.from('{"code":0}')));
    });
    return process;
  }

  #hasStubdom(name: string): boolean {
    return this.files.get(`/root/${name}/guest.cfg`)?.includes("device_model_stubdomain_override") ?? false;
  }

  #tick(seconds: number): number {
    this.#seconds += seconds;
    return this.#seconds;
  }

  #answer(words: readonly string[]): { status: number; output: string } {
    // dom0's own time in front of what is asked.
    const timed = "cat /proc/uptime; ";
    if (words[0]?.startsWith(timed)) {
      const { status, output } = this.#answer([words[0].slice(timed.length)]);
      this.#uptime += 60;
      return { status, output: `${this.#uptime}.00 1.00\n${output}` };
    }
    const [program, verb, ...rest] = words;
    const done = (output = "") => ({ status: 0, output });
    if (words[0] === processScript) {
      const models = [...this.guests].map(
        (_, index) => `${100 + index} 20480 ${1000 * this.#tick(1)} qemu\n`,
      );
      return done(`1 500 10 init\n${models.join("")}90 70 1 xl\n`);
    }
    if (words[0] === "xl info; xl list") {
      const free = `free_memory : ${4000 - 60 * this.guests.size}\n`;
      return done(`${free}${this.#answer(["xl list"]).output}`);
    }
    if (words[0] === "xl list") {
      const all = [...this.guests].flatMap((name) =>
        this.#hasStubdom(name) ? [name, `${name}-dm`] : [name],
      );
      const first = this.reborn ? this.#tick(1) : 1;
      const lines = all.map((name, index) => `${name} ${index + first} 64 1 -b---- 1.0`);
      return done(
        // xl has taken the rest from dom0.
        `Name ID Mem VCPUs State Time(s)\nDomain-0 0 ${1024 - 40 * this.guests.size} 1 r----- ${this.#tick(3)}.0\n${lines.join("\n")}\n`,
      );
    }
    if (words[3] === "change") return done('{"milliseconds":[30,null,10,20]}\n');
    if (words[3] === "rate") return done('{"updates":4,"pixels":960000,"seconds":2}\n');
    if (words[0]?.includes("Bochs BIOS")) return { status: this.rombios ? 0 : 1, output: "" };
    if (program !== "xl") {
      for (const name of words[0]?.includes("xl destroy") ? [...this.guests] : []) this.guests.delete(name);
      return done();
    }
    const name =
      verb === "create"
        ? (/\/root\/([^/]+)\/guest\.cfg/.exec(rest.at(-1) ?? "")?.[1] ?? "")
        : (rest[0] ?? "");
    if (verb === "create" && (this.broken || this.guests.size >= this.most))
      return { status: 3, output: "no" };
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

const median = (id: string, variant: VariantName = "dom0") => {
  const figure = recorder.results({ ...about, variants: VARIANT_NAMES }).figures[id]?.[variant];
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
    expect([median("idle.dom0"), median("idle.all")]).toEqual([50, 50]);
    expect(median("idle.wakes-all")).toBe(0);
    expect(median("idle.switches")).toBeGreaterThan(0);
    expect(median("start.up")).toBeGreaterThanOrEqual(0);
    expect([...host.guests]).toEqual([]);
    expect(host.asked).toContain("xl destroy stubdom-bench-0");
  });

  test("measures only the groups that were asked for", async () => {
    host.console = said.filter((line) => !line.includes("none"));
    bench = { ...bench, settings: { ...bench.settings, groups: ["start"] } };
    await measureOnce(bench, "dom0", 1);
    expect(Object.keys(recorder.results(about).figures)).toEqual([
      "start.create",
      "start.serial",
      "start.up",
    ]);
  });

  test("in which one thing does not work has the other figures, and a trouble", async () => {
    host.console = [
      "guest: up 1",
      "guest: probe echo udp-echo lost=5 failed nothing",
      ...said.slice(1, 3),
      "guest: ready",
    ];
    await measureOnce(bench, "dom0", 0);
    expect(median("network.echo-p50")).toMatch(/failed: the guest's program says: udp-echo lost=5/);
    expect(median("network.echo-p99")).toBe(median("network.echo-p50"));
    expect(median("access.port")).toBe(20);
    const { troubles } = recorder.results(about);
    expect(troubles).toContain(
      "round 1: dom0: echo: failed: the guest's program says: udp-echo lost=5 failed nothing",
    );
    // What did not come at all, or garbled, is no less missing.
    expect(median("access.mmio")).toBe("failed: the guest has not told of it");
    expect(troubles).toContain("round 1: dom0: mmio: failed: the guest has not told of it");
    expect(troubles.filter((text) => text.includes(": port:"))).toEqual([]);
  });

  test("in which the guest is started anew while it is watched has no figures of that", async () => {
    host.console = said;
    host.reborn = true;
    await expect(measureOnce(bench, "dom0", 0)).rejects.toThrow(/stubdom-bench-0 was started anew/);
    expect(median("access.port")).toBe(20);
    expect(median("idle.dom0")).toBeUndefined();
  });

  test("that breaks rejects with the reason, and its guest is gone", async () => {
    host.broken = true;
    await expect(measureOnce(bench, "dom0", 0)).rejects.toThrow(/exit status 3/);
    host.guests.add("stubdom-bench-7");
    await clearUp(host);
    expect([...host.guests]).toEqual([]);
  });
});

describe("MiniOS", () => {
  const image = Buffer.from("MiniOS, as if");
  const config = () => host.files.get("/root/stubdom-bench-0/guest.cfg");

  beforeEach(() => {
    host.console = ["guest: up 1.5", "guest: ready"];
    bench = { ...bench, minios: { image } };
  });

  test("is named in the guest's configuration, and nothing of the host's Xen is touched", async () => {
    await measureOnce(bench, "minios", 0);
    expect(config()).toContain('device_model_version = "qemu-xen-traditional"\n');
    expect(config()).toContain('stubdomain_kernel = "/root/stubdom-bench-minios.gz"\n');
    expect(config()).not.toContain("firmware_override");
    expect([...host.files.keys()].filter((path) => !path.startsWith("/root/stubdom-bench-"))).toEqual([]);
    expect(host.files.get("/root/stubdom-bench-minios.gz")).toBe("MiniOS, as if");
    expect(median("resources.image", "minios")).toBe(image.length / 1e6);
  });

  test("on a host whose hvmloader has no ROMBIOS: nothing is started, and the reason says what helps", async () => {
    host.rombios = false;
    await expect(measureOnce(bench, "minios", 0)).rejects.toThrow(/no ROMBIOS.*--minios-hvmloader/);
    await expect(measureSave(bench, "minios")).rejects.toThrow(/no ROMBIOS/);
    expect(host.asked.filter((text) => text.startsWith("xl create"))).toEqual([]);
  });

  test("gets whole checksums from dom0, without which its guest drops what dom0 sends", async () => {
    await measureOnce(bench, "minios", 0);
    expect(host.asked).toContain("python3 /root/stubdom-bench-ch");
    host.asked.length = 0;
    bench = { ...bench, settings: { ...bench.settings, groups: ["start"] } };
    await measureOnce(bench, "minios", 0);
    expect(host.asked.filter((text) => text.startsWith("python3"))).toEqual([]);
  });

  test("with an hvmloader of the user's, on a host that has none", async () => {
    host.rombios = false;
    bench = { ...bench, minios: { image, hvmloader: Buffer.from("BIOS") } };
    await measureOnce(bench, "minios", 0);
    expect(config()).toContain('firmware_override = "/root/stubdom-bench-hvmloader"\n');
    expect(host.files.get("/root/stubdom-bench-hvmloader")).toBe("BIOS");
  });
});

describe("what broke is marked with the reason", () => {
  test("in its groups, where these are measured and the figure is possible", () => {
    bench = { ...bench, settings: { ...bench.settings, groups: ["idle", "access"] } };
    recorder.add("dom0", "access.port", 1);
    markBroken(bench, "dom0", ["idle", "access", "disk"], "broke");
    expect(median("access.port")).toBe(1);
    expect(median("access.mmio")).toBe("broke");
    expect(median("idle.dom0")).toBe("broke");
    expect(median("idle.wakes")).toBeUndefined();
    expect(median("disk.seq-read")).toBeUndefined();
  });

  test("of what is counted, nothing else when instructions are", () => {
    bench = { ...bench, settings: settingsOf({ quick: false, minios: false, icount: true }) };
    markBroken(bench, "minios", ["access"], "broke");
    expect(median("access.port", "minios")).toBe("broke");
    expect(median("access.beside", "minios")).toBeUndefined();
  });
});

test("several guests at once: what all and each further one take of Xen and dom0, and all are destroyed", async () => {
  host.console = ["guest: up 1"];
  await measureDensity(bench, "dom0");
  // 100 MiB of Xen's each, and 20 of its QEMU in dom0.
  expect(median("density.host-1")).toBeCloseTo(120, 9);
  expect(median("density.host-8")).toBeCloseTo(960, 9);
  expect(median("density.memory")).toBeCloseTo(120, 9);
  expect([...host.guests]).toEqual([]);
  expect(host.asked.filter((text) => text.startsWith("xl create"))).toHaveLength(1 + 2 + 4 + 8);
});

test("several guests at once: what came before one that does not start is kept", async () => {
  host.console = ["guest: up 1"];
  host.most = 3;
  await expect(measureDensity(bench, "dom0")).rejects.toThrow(/exit status 3/);
  expect(median("density.host-2")).toBeCloseTo(240, 9);
  expect(median("density.memory")).toBeCloseTo(120, 9);
  expect(median("density.host-4")).toBeUndefined();
  expect([...host.guests]).toEqual([]);
});

test("save and restore", async () => {
  host.console = ["guest: beat 1"];
  await measureSave(bench, "dom0");
  expect(median("save.save")).toBeGreaterThanOrEqual(0);
  expect(median("save.restore")).toBeGreaterThanOrEqual(0);
  expect(median("save.console-save")).toBeUndefined();
  expect([...host.guests]).toEqual([]);
});

test("the screen: changes that came whole, and what an update weighs", async () => {
  host.console = ["ready"];
  await measureScreen(bench, "dom0");
  expect(median("screen.change")).toBe(20);
  expect([median("screen.rate"), median("screen.updates")]).toEqual([1, 2]);
  expect(median("screen.update")).toBe(960);
  expect([...host.guests]).toEqual([]);
});

describe("what a variant never has", () => {
  test("is known without a guest, in the groups that are measured", () => {
    bench = { ...bench, settings: { ...bench.settings, groups: ["start", "save"] } };
    for (const variant of VARIANT_NAMES) markNever(bench, variant);
    expect(median("start.agent")).toBe("there is no stub domain");
    expect(median("start.agent", "minios")).toMatch(/nothing in this stub domain/);
    expect(median("start.qemu", "shell-stubdom")).toBeUndefined();
    expect(median("save.console-save", "minios")).toMatch(/the one way/);
    expect(median("save.save", "minios")).toBeUndefined();
    expect(median("save.disk-rate", "minios")).toMatch(/only our stub domain/);
    expect(median("save.save", "shell-stubdom")).toMatch(/carries the device state out/);
    expect(median("save.save", "linux-stubdom")).toBeUndefined();
    expect(median("screen.rate", "shell-stubdom")).toBeUndefined();
  });

  test("is not tried: no guest is created for it", async () => {
    await measureScreen(bench, "shell-stubdom");
    await measureSave(bench, "shell-stubdom");
    expect(host.asked).toEqual([]);
  });

  test("keeps its reason when a run breaks", () => {
    bench = { ...bench, settings: { ...bench.settings, groups: ["save"] } };
    markNever(bench, "minios");
    markBroken(bench, "minios", ["save"], "broke");
    expect(median("save.restore", "minios")).toBe("broke");
    expect(median("save.console-restore", "minios")).toMatch(/the one way/);
  });
});

test("the screen of a guest whose VGA BIOS lacks the mode: said at once, not after twenty minutes", async () => {
  host.console = ["ready"];
  host.answer = "failed";
  await expect(measureScreen(bench, "dom0")).rejects.toThrow(/no mode of 800x600 with 32 bits/);
  expect([...host.guests]).toEqual([]);
});
