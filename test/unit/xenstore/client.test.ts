import { beforeEach, describe, expect, it } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { waitFor, XenstoreClient } from "../../../agent/xenstore/client.ts";
import {
  ConnectionLost,
  ProtocolError,
  RequestTimedOut,
  WaitTimedOut,
  XenstoreError,
} from "../../../agent/xenstore/errors.ts";
import { encodePacket, messages } from "../../../agent/xenstore/wire.ts";
import { FakeClock, settle } from "../../fakes/clock.ts";
import { type FakeXenbus, FakeXenstored } from "../../fakes/xenstored.ts";

const self = 5;
const home = `/local/domain/${self}`;

let daemon: FakeXenstored;
let bus: FakeXenbus;
let clock: FakeClock;
let client: XenstoreClient;

function start(options: ConstructorParameters<typeof FakeXenstored>[0] = {}): void {
  daemon = new FakeXenstored(options);
  daemon.set(home, "", self);
  clock = new FakeClock();
  bus = daemon.connect(self);
  client = new XenstoreClient(bus, clock);
}

beforeEach(() => start());

describe("single requests", () => {
  it("reads what dom0 wrote, relative and absolute, as bytes and as text", async () => {
    daemon.set(`${home}/target`, "4", self);
    daemon.set(`${home}/odd`, Uint8Array.of(0, 255, 10), self);
    expect(await client.readText("target")).toBe("4");
    expect(await client.readText(`${home}/target`)).toBe("4");
    expect(await client.read("odd")).toEqual(Uint8Array.of(0, 255, 10));
  });

  it("reads a value as long as a message can hold", async () => {
    const value = new Uint8Array(4096).fill(120);
    daemon.set(`${home}/long`, value, self);
    expect(await client.read("long")).toEqual(value);
  });

  it("lets what is in the background wait for all others, in its own order", async () => {
    daemon.set(`${home}/target`, "4", self);
    const order: string[] = [];
    const done = (name: string) => () => void order.push(name);
    await Promise.all([
      // Under way at once, for nothing else is asked yet.
      client.background.write("a", "1").then(done("a")),
      client.background.write("b", "2").then(done("b")),
      client.background.write("b", "3").then(done("b again")),
      client.readText("target").then(done("target")),
      client.write("c", "4").then(done("c")),
    ]);
    expect(order).toEqual(["a", "target", "c", "b", "b again"]);
    expect(await client.readText("b")).toBe("3");
  });

  it("writes, makes, lists and removes", async () => {
    await client.write("a/b", "one");
    await client.write("a/c", Uint8Array.of(0));
    await client.mkdir("a/d");
    expect(await client.directory("a")).toEqual(["b", "c", "d"]);
    expect(daemon.get(`${home}/a/b`)).toBe("one");
    await client.remove("a/b");
    await client.remove("a/b");
    expect(await client.directory("a")).toEqual(["c", "d"]);
  });

  it("names the error, the operation and the path", async () => {
    const error = await client.read("missing").catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(XenstoreError);
    expect(error).toMatchObject({ code: "ENOENT", operation: "read", path: "missing" });
    expect(String(error)).toMatch(/xenstore read missing: ENOENT, does not exist; check/);
  });

  it("takes an error that it does not know by name", async () => {
    daemon.refuse("read", "a", "EWHATEVER");
    await expect(client.read("a")).rejects.toMatchObject({ code: "EWHATEVER" });
  });

  it("answers absence with undefined where asked to, and nothing else", async () => {
    expect(await client.tryRead("missing")).toBeUndefined();
    expect(await client.tryReadText("missing")).toBeUndefined();
    expect(await client.tryDirectory("missing")).toEqual([]);
    daemon.set("/secret", "s");
    await expect(client.tryRead("/secret")).rejects.toMatchObject({ code: "EACCES" });
    // Nor is one told what is not there, beside what one may not read.
    await expect(client.tryRead("/secret/x")).rejects.toMatchObject({ code: "EACCES" });
    await expect(client.remove("/secret/x")).rejects.toMatchObject({ code: "EACCES" });
  });

  it("reads and sets permissions", async () => {
    await client.write("a", "1");
    await client.setPermissions("a", [
      { domid: self, access: "none" },
      { domid: 0, access: "read" },
    ]);
    expect(await client.permissions("a")).toEqual([
      { domid: self, access: "none" },
      { domid: 0, access: "read" },
    ]);
  });

  it("asks about domains", async () => {
    expect(await client.domainPath(4)).toBe("/local/domain/4");
    expect(await client.isDomainIntroduced(self)).toBe(true);
    expect(await client.isDomainIntroduced(99)).toBe(false);
  });

  it("refuses a bad path and a value over the device's limit before anything is sent", async () => {
    await expect(client.read("a//b")).rejects.toBeInstanceOf(ProtocolError);
    await expect(client.write("a", new Uint8Array(4096 - 16 - 1))).rejects.toMatchObject({ code: "E2BIG" });
    expect(daemon.requests).toEqual([]);
    // The device takes it; xenstored has no room for such a node of a guest's.
    await expect(client.write("a", new Uint8Array(4096 - 16 - 2))).rejects.toMatchObject({ code: "ENOSPC" });
    await client.write("a", new Uint8Array(2048 - 16 - 8));
  });

  it("leaves no timer behind", async () => {
    await client.write("a", "1");
    expect(clock.pending).toBe(0);
    expect(client.inFlight).toBe(0);
  });
});

describe("many in flight", () => {
  for (const reorder of [false, true]) {
    it(`matches each reply to its request ${reorder ? "whatever their order" : "in order"}`, async () => {
      start({ reorder });
      for (let n = 0; n < 100; n++) daemon.set(`${home}/n/${n}`, `value ${n}`, self);
      const numbers = Array.from({ length: 100 }, (_, n) => n);
      const values = await Promise.all(numbers.map((n) => client.readText(`n/${n}`)));
      expect(values).toEqual(numbers.map((n) => `value ${n}`));
    });
  }

  it("sends each when the one before has been answered: Linux keeps one payload a descriptor", async () => {
    bus.hold();
    const all = Promise.all([client.tryRead("a"), client.tryRead("b"), client.tryRead("c")]);
    await settle();
    expect(daemon.requests).toEqual(["read a"]);
    expect(clock.pending).toBe(1);
    bus.release();
    await all;
    expect(daemon.requests).toEqual(["read a", "read b", "read c"]);
    expect(clock.pending).toBe(0);
  });
});

describe("directories longer than a message", () => {
  const fill = (count: number) => {
    for (let n = 0; n < count; n++) daemon.set(`${home}/many/child-number-${n}`, "", self);
    return Array.from({ length: count }, (_, n) => `child-number-${n}`);
  };

  it("are put together from parts", async () => {
    const names = fill(1000);
    expect(await client.directory("many")).toEqual(names);
    expect(daemon.requests.filter((request) => request.startsWith("directoryPart")).length).toBeGreaterThan(
      3,
    );
  });

  it("are begun anew when one changes in between", async () => {
    const names = fill(1000);
    const { requests } = daemon;
    const listing = client.directory("many");
    while (requests.filter((request) => request.startsWith("directoryPart")).length < 2)
      await Promise.resolve();
    daemon.set(`${home}/many/late`, "", self);
    expect(await listing).toEqual([...names, "late"]);
    expect(requests.filter((request) => request.startsWith("directoryPart")).length).toBeGreaterThan(6);
  });

  it("are too big for a xenstored without parts", async () => {
    fill(1000);
    daemon.unsupported.add("directoryPart");
    await expect(client.directory("many")).rejects.toMatchObject({ code: "E2BIG", path: "many" });
  });

  it("do not go on for ever when every part is of another generation", async () => {
    fill(1000);
    let changes = 0;
    const listing = client.directory("many");
    const done = listing.then(
      () => true,
      () => true,
    );
    let finished = false;
    void done.then(() => {
      finished = true;
    });
    while (!finished) {
      daemon.set(`${home}/many`, `${changes++}`, self);
      await Promise.resolve();
    }
    await expect(listing).rejects.toMatchObject({ code: "EAGAIN" });
  });
});

describe("transactions", () => {
  it("commit all at once", async () => {
    await client.transaction(async (tx) => {
      await tx.write("a", "1");
      await tx.write("b", "2");
      expect(await tx.readText("a")).toBe("1");
      expect(daemon.get(`${home}/a`)).toBeUndefined();
    });
    expect([daemon.get(`${home}/a`), daemon.get(`${home}/b`)]).toEqual(["1", "2"]);
  });

  it("give back what the body returns", async () => {
    daemon.set(`${home}/a`, "7", self);
    expect(await client.transaction((tx) => tx.readText("a"))).toBe("7");
  });

  it("run again after a conflict, on the new state", async () => {
    daemon.set(`${home}/count`, "1", self);
    let runs = 0;
    await client.transaction(async (tx) => {
      const count = Number(await tx.readText("count"));
      if (runs++ < 2) daemon.set(`${home}/count`, `${count + 10}`, self);
      await tx.write("count", `${count + 1}`);
    });
    expect(runs).toBe(3);
    expect(daemon.get(`${home}/count`)).toBe("22");
  });

  it("give up after many conflicts, naming EAGAIN", async () => {
    daemon.set(`${home}/count`, "0", self);
    let runs = 0;
    const hopeless = client.transaction(async (tx) => {
      await tx.read("count");
      daemon.set(`${home}/count`, `${runs++}`, self);
      await tx.write("count", "x");
    });
    await expect(hopeless).rejects.toMatchObject({ code: "EAGAIN" });
    expect(runs).toBe(32);
  });

  it("are discarded when the body throws, and its error stands", async () => {
    const broken = client.transaction(async (tx) => {
      await tx.write("a", "1");
      throw new Error("no");
    });
    await expect(broken).rejects.toThrow("no");
    expect(daemon.get(`${home}/a`)).toBeUndefined();
    expect(bus.transactions.size).toBe(0);
  });

  it("refuse what is asked of them after their end", async () => {
    let leaked: { read(path: string): Promise<unknown> } | undefined;
    await client.transaction(async (tx) => {
      leaked = tx;
    });
    await expect(leaked?.read("a")).rejects.toBeInstanceOf(ProtocolError);
  });
});

describe("watches", () => {
  it("fire once at the start and then for each change, with paths as they were asked for", async () => {
    const relative: string[] = [];
    const absolute: string[] = [];
    await client.watch("device", (path) => relative.push(path));
    await client.watch(`${home}/device`, (path) => absolute.push(path));
    daemon.set(`${home}/device/vbd/768/state`, "1", self);
    daemon.set(`${home}/other`, "1", self);
    await settle();
    expect(relative).toEqual(["device", "device/vbd/768/state"]);
    expect(absolute).toEqual([`${home}/device`, `${home}/device/vbd/768/state`]);
  });

  it("tell of the removal of a parent by their own path", async () => {
    daemon.set(`${home}/device/vif/0/state`, "4", self);
    const seen: string[] = [];
    await client.watch("device/vif/0/state", (path) => seen.push(path));
    await settle();
    daemon.remove(`${home}/device`);
    await settle();
    expect(seen).toEqual(["device/vif/0/state", "device/vif/0/state"]);
  });

  it("see special events, where that is permitted", async () => {
    const seen: string[] = [];
    await client.watch("@releaseDomain", (path) => seen.push(path));
    daemon.releaseDomain(4);
    await settle();
    expect(seen).toEqual(["@releaseDomain"]);
    await client.watch("@introduceDomain", (path) => seen.push(path));
    daemon.permit("@introduceDomain", [
      { domid: 0, access: "none" },
      { domid: self, access: "read" },
    ]);
    daemon.introduceDomain(4);
    await settle();
    expect(seen.slice(1)).toEqual(["@introduceDomain", "@introduceDomain", "@introduceDomain"]);
  });

  it("are silent from stop() on, which may be called twice", async () => {
    const seen: string[] = [];
    const watch = await client.watch("a", (path) => seen.push(path));
    await settle();
    daemon.set(`${home}/a`, "under way", self);
    const stopped = watch.stop();
    await Promise.all([stopped, watch.stop()]);
    daemon.set(`${home}/a`, "later", self);
    await settle();
    expect(seen).toEqual(["a"]);
    expect(daemon.watchCount).toBe(0);
    expect(daemon.requests.filter((request) => request.startsWith("unwatch"))).toHaveLength(1);
  });

  it("are refused by the errno of the kernel's write", async () => {
    daemon.refuse("watch", "a", "EACCES");
    await expect(client.watch("a", () => {})).rejects.toMatchObject({
      code: "EACCES",
      operation: "watch",
      path: "a",
    });
    expect(await client.tryRead("a")).toBeUndefined();
  });

  it("survive a listener that throws", async () => {
    const seen: string[] = [];
    await client.watch("a", (path) => {
      seen.push(path);
      throw new Error("listener");
    });
    daemon.set(`${home}/a`, "1", self);
    await settle();
    expect(seen).toEqual(["a", "a"]);
  });
});

describe("a xenstored that does not answer", () => {
  it("fails the request after its deadline, and the connection with it", async () => {
    bus.hold();
    const first = client.read("a").catch((error: unknown) => error);
    await clock.advance(3000);
    const second = client.read("b").catch((error: unknown) => error);
    await clock.advance(2000);
    const error = await first;
    expect(error).toBeInstanceOf(RequestTimedOut);
    expect(String(error)).toMatch(/xenstore read a: no reply in 4000 ms; check/);
    expect(await second).toBeInstanceOf(ConnectionLost);
    expect(client.inFlight).toBe(0);
    expect(clock.pending).toBe(0);
  });
});

describe("a connection that is cut", () => {
  it("in the middle of a packet fails every request and tells every watch", async () => {
    daemon.set(`${home}/a`, "1234567890", self);
    const lost: ConnectionLost[] = [];
    await client.watch(
      "w",
      () => {},
      (error) => lost.push(error),
    );
    await settle();
    bus.cutAfter(20);
    const results = await Promise.allSettled([client.read("a"), client.read("a"), client.read("a")]);
    for (const result of results) {
      expect(result.status).toBe("rejected");
      expect(result).toMatchObject({ reason: { reason: "cut 20 bytes into a packet" } });
    }
    expect(lost).toHaveLength(1);
    expect(lost[0]).toBeInstanceOf(ConnectionLost);
    expect(clock.pending).toBe(0);
    await expect(client.read("a")).rejects.toThrow(/read a: connection lost, cut 20 bytes/);
    // In the stub domain as well as in dom0.
    expect(lost[0]?.message).toBe(
      "xenstore connection: connection lost, cut 20 bytes into a packet; nothing goes on without xenstore, look into xenstored's log in dom0",
    );
    await expect(client.watch("a", () => {})).rejects.toBeInstanceOf(ConnectionLost);
  });

  it("between packets says so", async () => {
    bus.hold();
    const reading = client.read("a");
    await settle();
    bus.cutAfter(0);
    await expect(reading).rejects.toMatchObject({ reason: "cut between packets" });
  });

  it("at every byte of a reply leaves nothing pending", async () => {
    const length = encodePacket({
      type: "read",
      requestId: 1,
      transactionId: 0,
      payload: encodeText("value"),
    }).length;
    for (let at = 0; at < length; at++) {
      start({ seed: at });
      daemon.set(`${home}/a`, "value", self);
      bus.cutAfter(at);
      await expect(client.read("a")).rejects.toBeInstanceOf(ConnectionLost);
      expect(client.inFlight).toBe(0);
    }
  });

  it("by ourselves, twice, does the same", async () => {
    bus.hold();
    const reading = client.read("a");
    await settle();
    client.close();
    client.close();
    await expect(reading).rejects.toMatchObject({ reason: "closed by the agent" });
    expect(bus.closed).toBe(true);
  });
});

describe("a xenstored that breaks the protocol", () => {
  const reply = (
    type: "read" | "write" | "error",
    requestId: number,
    payload: Uint8Array,
    transactionId = 0,
  ) => encodePacket({ type, requestId, transactionId, payload });

  for (const [what, bytes] of [
    ["a length over the limit", Uint8Array.of(2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 16, 0, 0)],
    ["an unknown type", Uint8Array.of(200, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)],
    ["a reply of another type", reply("write", 1, messages.write.reply.encode(null))],
    ["a reply of another transaction", reply("read", 1, encodeText("x"), 9)],
    [
      "an event without a token",
      encodePacket({ type: "watchEvent", requestId: 0, transactionId: 0, payload: encodeText("a\0") }),
    ],
  ] as const) {
    it(`loses its connection by ${what}`, async () => {
      bus.hold();
      const reading = client.read("a");
      const outcome = reading.catch((error: unknown) => error);
      await settle();
      bus.inject(bytes);
      const error = await outcome;
      expect(error instanceof ConnectionLost || error instanceof ProtocolError).toBe(true);
      await settle();
      await expect(client.read("b")).rejects.toBeInstanceOf(ConnectionLost);
      expect(bus.closed).toBe(true);
      expect(clock.pending).toBe(0);
    });
  }

  it("loses the connection by a reply that nobody waits for", async () => {
    bus.inject(reply("read", 77, encodeText("x")));
    await expect(client.readText("a")).rejects.toBeInstanceOf(ConnectionLost);
  });
});

describe("waitFor", () => {
  it("returns at once what is there", async () => {
    daemon.set(`${home}/state`, "4", self);
    expect(await waitFor(client, "state", (value) => value === "4", 1000)).toBe("4");
    await settle();
    expect(clock.pending).toBe(0);
    expect(daemon.watchCount).toBe(0);
  });

  it("waits for the change, however fast changes come", async () => {
    const waiting = waitFor(client, "state", (value) => value === "4", 1000);
    await settle();
    for (const state of ["1", "2", "3", "4"]) daemon.set(`${home}/state`, state, self);
    expect(await waiting).toBe("4");
  });

  it("waits for absence too", async () => {
    daemon.set(`${home}/state`, "4", self);
    const waiting = waitFor(client, "state", (value) => value === undefined, 1000);
    await settle();
    daemon.remove(`${home}/state`);
    expect(await waiting).toBeUndefined();
  });

  it("names the path and what it held at the deadline, and stops watching", async () => {
    daemon.set(`${home}/state`, "3", self);
    const waiting = waitFor(client, "state", (value) => value === "4", 1000);
    const outcome = waiting.catch((error: unknown) => error);
    await clock.advance(1000);
    const error = await outcome;
    expect(error).toBeInstanceOf(WaitTimedOut);
    expect(String(error)).toMatch(/state: is still "3" after 1000 ms/);
    await settle();
    expect(daemon.watchCount).toBe(0);
    expect(clock.pending).toBe(0);
  });

  it("fails with the connection", async () => {
    const waiting = waitFor(client, "state", () => false, 1000);
    await settle();
    bus.cutAfter(0);
    await expect(waiting).rejects.toBeInstanceOf(ConnectionLost);
    expect(clock.pending).toBe(0);
  });
});
