/** `stubdom dom0 serve` as it is compiled, with real files, loop devices and kills; see dom0-helper/host.ts. */

import { execFile, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { watch } from "node:fs";
import { afterEach, beforeEach, expect, it } from "vitest";
import { helperHome, requestNode } from "../../agent/savestate/protocol.ts";
import { XenstoreClient } from "../../agent/xenstore/client.ts";
import { eachOf } from "../each-of.ts";
import { type ClientStep, Dom0, realClock, Stubdom, until } from "./dom0-helper/host.ts";

let dom0: Dom0;
const S = 5;
const T = 4;

beforeEach(async () => {
  dom0 = await Dom0.start();
});

afterEach(async () => {
  await dom0.stop();
});

/** Bytes that look like no others, the same for the same seed. */
function bytes(size: number, seed: number): Buffer {
  const parts: Buffer[] = [];
  for (let i = 0; i * 64 < size; i++)
    parts.push(
      createHash("sha512")
        .update(`${seed} ${Math.floor(i)}`)
        .digest(),
    );
  return Buffer.concat(parts).subarray(0, size);
}

const same = (file: Buffer | undefined, state: Buffer) => file?.equals(state) === true;

it("a state goes where libxl reads it, byte for byte, and nothing else is left", async () => {
  await dom0.startHelper();
  dom0.addStubdom(S, T);
  await dom0.met(S);
  const stubdom = new Stubdom(dom0, S, T);
  await stubdom.save(bytes(10, 1));
  const before = dom0.helperDescriptors;
  for (const size of [100_000, 1, 700_001]) {
    const state = bytes(size, size);
    await stubdom.save(state);
    expect(same(dom0.saved(T), state)).toBe(true);
    await dom0.expectNothingLeft([S]);
  }
  expect(dom0.helperDescriptors).toBe(before);
  stubdom.close();
  expect(dom0.log).not.toMatch(/\] (error|warn)/);
});

it("a disk that gets full is enlarged while it is attached", async () => {
  await dom0.startHelper();
  dom0.addStubdom(S, T);
  await dom0.met(S);
  const stubdom = new Stubdom(dom0, S, T);
  const state = bytes(34 << 20, 9);
  const steps: ClientStep[] = [];
  await stubdom.save(state, (step) => steps.push(step));
  expect(steps.filter((step) => step === "grow").length).toBeGreaterThan(0);
  expect(same(dom0.saved(T), state)).toBe(true);
  // Far below the state's size: nothing holds it whole.
  expect(dom0.helperPeak).toBeLessThan(12 * 1024);
  await dom0.expectNothingLeft([S]);
  stubdom.close();
}, 60_000);

it("status says what is going on", async () => {
  await dom0.startHelper();
  dom0.addStubdom(S, T);
  dom0.daemon.set(`/local/domain/${T}/name`, "web");
  await dom0.met(S);
  const stubdom = new Stubdom(dom0, S, T);
  await stubdom.save(bytes(10, 1));
  stubdom.close();
  const options = ["--directory", dom0.stateDirectory, "--xenstored", dom0.socketPath];
  const status = () =>
    new Promise<string>((resolve) => {
      // xenstored is this process, which must not wait for the command.
      execFile("dist/stubdom", ["dom0", "status", ...options], (_, stdout) => resolve(stdout));
    });
  expect(await status()).toMatch(
    /^the helper runs, version .*\ndomain 5 +serves 4 web .* commit 10 .* placed 10\n$/,
  );
  await dom0.stopHelper("SIGKILL");
  expect(await status()).toMatch(/^the helper does not run/);
});

it("a second helper is refused by name", async () => {
  await dom0.startHelper();
  const args = ["dom0", "serve", "--directory", dom0.stateDirectory, "--xenstored", dom0.socketPath];
  const { status, stderr } = spawnSync("dist/stubdom", [...args, "--xen-directory", dom0.xenDirectory], {
    encoding: "utf8",
    timeout: 5000,
  });
  expect(status).toBe(1);
  expect(stderr).toContain(`another helper holds ${dom0.stateDirectory}/lock`);
});

/** QEMU's states begin so; what does not is refused when it is to be restored. */
function qemuState(size: number, seed: number): Buffer {
  const state = Buffer.from(bytes(size, seed));
  state.write("QEVM", "latin1");
  return state;
}

interface Work {
  /** A new guest's stub domain, on the sending or the receiving host. */
  prepare(dom0: Dom0, target: number, state: Buffer): void;
  /** Rejects when it fails; what it resolves for must be right. */
  run(stubdom: Stubdom, state: Buffer, step?: (name: ClientStep) => void): Promise<void>;
  readonly steps: readonly ClientStep[];
}

const works: Readonly<Record<"save" | "restore", Work>> = {
  save: {
    prepare: () => {},
    async run(stubdom, state, step) {
      await stubdom.save(state, step);
      expect(same(stubdom.dom0.saved(stubdom.target), state)).toBe(true);
    },
    steps: ["ask", "attached", "write", "written", "commit", "placed"],
  },
  restore: {
    prepare: (dom0, target, state) => dom0.received(target, state),
    async run(stubdom, state, step) {
      expect(same(await stubdom.restore(step), state)).toBe(true);
    },
    steps: ["ask", "attached", "verified", "read", "release", "released"],
  },
};

/** Requests of the helper's meanwhile, each once, in order. */
async function learnRequests(work: Work, state: Buffer): Promise<string[]> {
  await dom0.startHelper();
  dom0.addStubdom(S, T);
  work.prepare(dom0, T, state);
  await dom0.met(S);
  await dom0.quiet();
  const seen = new Set<string>();
  dom0.onHelperRequest = (request) => void seen.add(request);
  const stubdom = new Stubdom(dom0, S, T);
  await work.run(stubdom, state);
  dom0.onHelperRequest = () => {};
  stubdom.close();
  dom0.destroy(S, T);
  await dom0.stopHelper("SIGTERM");
  return [...seen];
}

async function killHelperAt(dom0: Dom0, work: Work, step: string, state: Buffer): Promise<void> {
  const label = `killed at "${step}"`;
  await dom0.startHelper();
  dom0.addStubdom(S, T);
  work.prepare(dom0, T, state);
  await dom0.met(S);
  const stubdom = new Stubdom(dom0, S, T);
  let killed = false;
  const kill = () => {
    if (!killed) dom0.killHelper();
    killed = true;
    // Not before: the helper has its time as long as it lives.
    stubdom.hurry();
  };
  dom0.onHelperRequest = (request) => {
    if (request === step) kill();
  };
  const watcher = watch(dom0.xenDirectory, (_, name) => {
    if (step === "file appears" && name?.startsWith(".")) kill();
    if (step === "file has its name" && name === `qemu-save.${T}`) kill();
  });
  await work.run(stubdom, state).catch((error: unknown) => {
    // What it says itself is no failure of the helper's.
    if (error instanceof Error && error.name === "AssertionError") throw error;
  });
  stubdom.close();
  watcher.close();
  dom0.onHelperRequest = () => {};
  expect(killed, label).toBe(true);
  await dom0.stopHelper("SIGKILL");
  const file = dom0.saved(T);
  if (file !== undefined) expect(file.equals(state), label).toBe(true);
  await dom0.startHelper();
  await dom0.met(S);
  await dom0.expectNothingLeft([S], label);
  const again = new Stubdom(dom0, S, T);
  await work.run(again, state);
  again.close();
}

it.each(["save", "restore"] as const)(
  "the helper is killed at each of its steps of a %s: no half state, no leak, and the next one works",
  async (kind) => {
    const work = works[kind];
    const state = qemuState(300_000, 3);
    const requests = await learnRequests(work, state);
    // Between the last requests lie the steps that xenstore does not see: a file appears, gets its name.
    const files = kind === "save" ? ["file appears", "file has its name"] : [];
    expect(requests.length).toBeGreaterThanOrEqual(12);
    await eachOf([...requests, ...files], 6, async (step) => {
      const own = await Dom0.start();
      try {
        await killHelperAt(own, work, step, state);
      } finally {
        await own.stop();
      }
    });
    console.log(`${kind}: the helper was killed at ${requests.length + files.length} steps`);
  },
  300_000,
);

it.each(["save", "restore"] as const)(
  "the stub domain is destroyed at each of its steps and of the helper's of a %s: nothing is left of it",
  async (kind) => {
    const work = works[kind];
    const state = qemuState(300_000, 4);
    const theirs = await learnRequests(work, state);
    await dom0.startHelper();
    let domid = 10;
    for (const step of [...work.steps, ...theirs]) {
      const label = `destroyed at "${step}"`;
      domid += 2;
      const target = domid + 1;
      dom0.addStubdom(domid, target);
      work.prepare(dom0, target, state);
      await dom0.met(domid);
      const stubdom = new Stubdom(dom0, domid, target);
      let destroyed = false;
      const destroy = () => {
        if (destroyed) return;
        destroyed = true;
        dom0.destroy(domid, target);
        stubdom.close();
      };
      dom0.onHelperRequest = (request) => {
        if (request === step) destroy();
      };
      await work
        .run(stubdom, state, (name) => {
          if (name !== step) return;
          destroy();
          throw new Error("destroyed");
        })
        .catch(() => {});
      dom0.onHelperRequest = () => {};
      expect(destroyed, label).toBe(true);
      await dom0.expectNothingLeft([domid], label);
      const trees = () =>
        [`/local/domain/${domid}`, `/libxl/${domid}`, helperNode(domid)].filter(
          (path) => dom0.daemon.get(path) !== undefined,
        );
      await until(() => trees().length === 0, `${label}: ${trees().join(" ")} go`);
      expect(dom0.saved(target), label).toBeUndefined();
    }
    // The helper has lived through all of it.
    dom0.addStubdom(S, T);
    work.prepare(dom0, T, state);
    await dom0.met(S);
    const last = new Stubdom(dom0, S, T);
    await work.run(last, state);
    last.close();
    console.log(`${kind}: the stub domain was destroyed at ${work.steps.length + theirs.length} steps`);
  },
  300_000,
);

const helperNode = (domid: number) => `${helperHome}/${domid}`;

it("twenty stub domains save at once, in bounded memory; for one that floods the helper does less than twice as much", async () => {
  await dom0.startHelper();
  const state = bytes(400_000, 5);
  const guests = Array.from({ length: 20 }, (_, i) => {
    dom0.addStubdom(100 + i, 200 + i);
    return new Stubdom(dom0, 100 + i, 200 + i);
  });
  dom0.addStubdom(99, 199);
  await Promise.all(guests.map(({ domid }) => dom0.met(domid)));
  const one = guests[0];
  if (one === undefined) throw new Error("no guest");
  await one.save(state);
  const peakOfOne = dom0.helperPeak;
  let asked = 0;
  dom0.onHelperRequest = () => void asked++;
  const round = async () => {
    const before = asked;
    await Promise.all(guests.map((guest) => guest.save(state)));
    return asked - before;
  };
  const quiet = await round();
  const peakOfAll = dom0.helperPeak;

  const hostile = new XenstoreClient(dom0.daemon.connect(99), realClock);
  const before = asked;
  let written = 0;
  let flooding = true;
  const flood = (async () => {
    while (flooding) {
      await hostile.write(requestNode(99, 199), `1 ${++written} save 99999999999`);
      // As fast as this process, which plays xenstored and all of the guests, lets others run at all.
      await new Promise((resolve) => setImmediate(resolve));
    }
  })();
  // Were each looked at, that alone would be too much.
  await until(() => written > 2 * quiet, "a flood", 60_000);
  await round();
  const flooded = asked - before;
  flooding = false;
  await flood;
  hostile.close();
  for (const { target } of guests) expect(same(dom0.saved(target), state)).toBe(true);
  await dom0.expectNothingLeft(guests.map(({ domid }) => domid));
  console.log(
    `20 at once: ${quiet} requests, under ${written} hostile writes ${flooded}; the helper's peak: ${peakOfOne} KiB with one, ${peakOfAll} KiB with twenty, ${dom0.helperPeak} KiB in the flood`,
  );
  expect(flooded).toBeLessThan(2 * quiet);
  // Two chunks and what goes with them for each, however large the states are.
  expect(dom0.helperPeak - peakOfOne).toBeLessThan(20 * 1024);
  for (const guest of guests) guest.close();
}, 120_000);
