/** Rounds on a dom0 in which each command succeeds at once, and with parts that are not measured. */
import { afterEach, expect, test } from "vitest";
import type { Bench } from "../../../scripts/bench/measuring.ts";
import { Recorder, type Results } from "../../../scripts/bench/results.ts";
import { measureAll, type Part } from "../../../scripts/bench/rounds.ts";
import { settingsOf } from "../../../scripts/bench/settings.ts";
import type { VariantName } from "../../../scripts/bench/variants.ts";
import { EXIT, RemoteProcess } from "../../../scripts/lab/channel.ts";
import { CreateFailure } from "../../../scripts/lab/errors.ts";
import { XenHost } from "../../../scripts/lab/xen-host.ts";
import { about } from "./example.ts";

class WillingHost extends XenHost {
  override readonly log = "";
  readonly asked: string[] = [];
  /** Called with each command before it is carried out. */
  onCommand: (command: string) => void = () => {};
  override get guestFaults(): readonly string[] {
    return [];
  }
  override async stop(): Promise<void> {}
  override spawn(command: string | readonly string[]): RemoteProcess {
    const process = new RemoteProcess(() => {});
    this.asked.push(String(command));
    this.onCommand(String(command));
    // A guest says nothing for as long as it is there.
    if (!String(command).includes("xl console"))
      setImmediate(() => process.receive(EXIT, Buffer.from('{"code":0}')));
    return process;
  }
}

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
const listening = signals.map((name) => [name, process.listeners(name)] as const);
afterEach(() => {
  for (const [name, before] of listening)
    for (const each of process.listeners(name)) if (!before.includes(each)) process.off(name, each);
});

/** Measures with these parts, and gives each of the results that would have been kept, and why it ended. */
async function run(
  parts: readonly Part[] | undefined,
  order: readonly (readonly VariantName[])[],
  host = new WillingHost(),
): Promise<{
  kept: (Pick<Results, "figures" | "troubles"> & { ended: string })[];
  error: unknown;
  last: Results;
}> {
  const recorder = new Recorder();
  const only = ["access", "disk", "save"];
  const settings = { ...settingsOf({ quick: true, icount: false, minios: true, only }), patience: 0.01 };
  const image = () => Promise.resolve("/dev/null");
  const minios = { image: Buffer.from("image") };
  const bench: Bench = { host, settings, recorder, disk: image, screen: image, minios };
  const variants = order[0] ?? [];
  const results = () => recorder.results({ ...about, variants });
  const kept: Awaited<ReturnType<typeof run>>["kept"] = [];
  const error = await measureAll(
    bench,
    variants,
    order,
    (ended) => kept.push({ ...results(), ended }),
    parts,
  ).then(
    () => undefined,
    (reason: unknown) => reason,
  );
  return { kept, error, last: results() };
}

test("what an interrupted run has measured is kept, in the first variant too", async () => {
  const part: Part = {
    name: "",
    groups: ["access"],
    measure: async ({ recorder }, variant) => {
      recorder.add(variant, "access.port", 5);
      process.emit("SIGINT");
      throw new Error("the guest has gone");
    },
  };
  const { kept, error } = await run([part], [["dom0", "minios"]]);
  expect(error).toEqual(new Error("ended by SIGINT"));
  const last = kept.at(-1);
  expect(last?.ended).toBe("ended before all was measured: ended by SIGINT");
  expect(last?.figures["access.port"]).toEqual({ dom0: { runs: [5], median: 5, q1: 5, q3: 5 } });
});

test.each([
  ["a command of dom0's fails", () => new Error("no bridges here")],
  ["it is interrupted", () => undefined],
])("what was brought into dom0 is taken back where %s before anything is measured", async (_, failure) => {
  const host = new WillingHost();
  host.onCommand = (command) => {
    if (!command.startsWith("ip link show")) return;
    const error = failure();
    if (error !== undefined) throw error;
    process.emit("SIGINT");
  };
  const { kept, error } = await run([], [["dom0"]], host);
  expect(String(error)).toMatch(/no bridges here|ended by SIGINT/);
  expect(kept).toEqual([]);
  expect(host.asked.at(-1)).toMatch(/^rm -rf \/root\/stubdom-bench-\* /);
});

test("each variant is kept when it has been measured; what comes once comes once", async () => {
  const asked: string[] = [];
  const part = (name: string, once: boolean): Part => ({
    name,
    groups: ["access"],
    once,
    measure: async ({ recorder }, variant, round) => {
      asked.push(`${round} ${variant}${name}`);
      recorder.add(variant, "access.port", 1);
    },
  });
  const order: VariantName[][] = [
    ["dom0", "minios"],
    ["minios", "dom0"],
  ];
  const { kept, error } = await run([part("", false), part(", dense", true)], order);
  expect(error).toBeUndefined();
  expect(asked).toEqual(["0 dom0", "0 dom0, dense", "0 minios", "0 minios, dense", "1 minios", "1 dom0"]);
  expect(kept.map(({ ended }) => ended)).toEqual(Array(4).fill("ended before all was measured"));
});

test("MiniOS that did not start is not waited for again; others are, and so is one that broke later", async () => {
  const asked: string[] = [];
  const part = (group: "access" | "disk"): Part => ({
    name: "",
    groups: [group],
    measure: async (_, variant) => {
      asked.push(`${variant} ${group}`);
      if (variant === "minios" && group === "access") throw new Error("its VGA BIOS has no mode");
      throw new CreateFailure("no such image\nmore");
    },
  });
  const order: VariantName[][] = [
    ["minios", "dom0"],
    ["minios", "dom0"],
  ];
  const { error, last } = await run([part("access"), part("disk")], order);
  expect(error).toBeUndefined();
  expect(asked).toEqual([
    "minios access",
    "minios disk",
    "dom0 access",
    "dom0 disk",
    "dom0 access",
    "dom0 disk",
  ]);
  const reason = { absent: "not tried again: no such image" };
  expect(last.figures["access.port"]?.minios).toEqual(reason);
  expect(last.figures["disk.seq-read"]?.minios).toEqual(reason);
  expect(last.figures["disk.seq-read"]?.dom0).toEqual({ absent: "failed: no such image" });
  expect(last.troubles.filter((text) => text.includes("minios"))).toHaveLength(2);
});

test("a guest of MiniOS that says nothing did not start", async () => {
  const { error, last } = await run(undefined, [["minios"], ["minios"]]);
  expect(error).toBeUndefined();
  expect(last.figures["save.save"]?.minios).toEqual({
    absent: expect.stringMatching(/^not tried again: stubdom-bench-0: no .* on the console/),
  });
  expect(last.troubles).toHaveLength(1);
});

test("MiniOS that has measured something is tried again, though several guests at once did not start", async () => {
  const asked: string[] = [];
  const part = (group: "access" | "disk"): Part => ({
    name: "",
    groups: [group],
    once: group === "disk",
    measure: async ({ recorder }) => {
      asked.push(group);
      if (group === "disk") throw new CreateFailure("no memory for the fourth");
      recorder.add("minios", "access.port", 1);
    },
  });
  const { last } = await run([part("access"), part("disk")], [["minios"], ["minios"]]);
  expect(asked).toEqual(["access", "disk", "access"]);
  expect(last.figures["access.port"]?.minios).toMatchObject({ runs: [1, 1] });
  expect(last.troubles).toEqual([expect.stringContaining("no memory for the fourth")]);
});
