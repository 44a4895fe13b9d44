import { describe, expect, it } from "vitest";
import { encodeMessages, NLMSG_ERROR, Payload } from "../../../../agent/frontends/net/netlink.ts";
import { changing, RouteClient, RouteError, redirecting } from "../../../../agent/frontends/net/route.ts";
import { SystemError } from "../../../../agent/platform/port.ts";
import { FakeClock, settle } from "../../../fakes/clock.ts";
import { fakePlatform } from "../../../fakes/platform.ts";
import { FakeRouteKernel } from "./route-kernel.ts";

function open() {
  const kernel = new FakeRouteKernel([
    { index: 1, name: "lo", loopback: true, mtu: 65536 },
    { index: 2, name: "eth0", mac: "00:16:3e:00:00:01" },
    { index: 3, name: "eth1", mac: "00:16:3e:00:00:02", mtu: 9000 },
  ]);
  const clock = new FakeClock();
  const route = new RouteClient(
    fakePlatform({ clock, descriptors: kernel.descriptors, sockets: kernel.sockets }),
  );
  return { kernel, clock, route };
}

const eth0 = { index: 2, name: "eth0" };
const eth1 = { index: 3, name: "eth1" };

describe("the rtnetlink client", () => {
  it("lists links and finds one", async () => {
    const { route } = open();
    expect((await route.links()).map(({ name, mtu }) => [name, mtu])).toEqual([
      ["lo", 65536],
      ["eth0", 1500],
      ["eth1", 9000],
    ]);
    expect(await route.link("eth1")).toMatchObject({ index: 3, mac: "00:16:3e:00:00:02" });
  });

  it("reads a list again that changed meanwhile, and gives up on one that never stands still", async () => {
    const { kernel, route } = open();
    kernel.interruptedDumps = 1;
    expect(await route.links()).toHaveLength(3);
    expect(kernel.journal).toEqual(["get all", "get all"]);
    kernel.interruptedDumps = 1000;
    await expect(route.links()).rejects.toThrow(
      "list network interfaces: EINTR (the list kept changing, read 5",
    );
  });

  it("needs no timer for what the kernel answers at once, and leaves none behind", async () => {
    const { clock, route } = open();
    await route.change(eth0, { up: true });
    expect(clock.pending).toBe(0);
  });

  it("names interface, change and error", async () => {
    const { kernel, route } = open();
    kernel.refusals.set("set eth0 up mtu 70000", 22);
    await expect(route.change(eth0, { up: true, mtu: 70000 })).rejects.toThrow(
      "set eth0 up=true mtu=70000: EINVAL",
    );
    await expect(route.link("eth9")).rejects.toThrow("look up eth9: ENODEV");
    kernel.refusals.set("delete eth0", 4000);
    await expect(route.deleteLink(eth0)).rejects.toThrow("delete eth0: E4000");
  });

  it("fails with ETIMEDOUT when the kernel keeps silent", async () => {
    const { kernel, clock, route } = open();
    kernel.silent = true;
    const failed = expect(route.change(eth0, { up: true })).rejects.toThrow(
      "set eth0 up=true: ETIMEDOUT (no answer from the kernel within 2000 ms)",
    );
    await clock.advance(1999);
    expect(clock.pending).toBe(1);
    await clock.advance(1);
    await failed;
    expect(clock.pending).toBe(0);
  });

  it("takes an answer that comes late, and cancels its timer", async () => {
    const { kernel, clock, route } = open();
    kernel.silent = true;
    const done = route.change(eth0, { up: true });
    await settle();
    kernel.say(encodeMessages([{ type: NLMSG_ERROR, flags: 0, sequence: 1, payload: new Payload(0) }]));
    await done;
    expect(clock.pending).toBe(0);
  });

  it("passes over answers to requests that nobody waits for", async () => {
    const { kernel, route } = open();
    kernel.say(encodeMessages([{ type: NLMSG_ERROR, flags: 0, sequence: 77, payload: new Payload(0) }]));
    await route.change(eth0, { up: true });
  });

  it("fails what is under way when the kernel's bytes make no sense, and goes on", async () => {
    const { kernel, route } = open();
    kernel.silent = true;
    const failed = expect(route.change(eth0, { up: true })).rejects.toThrow("set eth0 up=true: EPROTO");
    kernel.say(new Uint8Array(15));
    await failed;
    kernel.silent = false;
    await route.change(eth0, { up: true });
  });

  it("has several things done in one datagram, and tells which of them were refused", async () => {
    const { kernel, route } = open();
    let datagrams = 0;
    const { write } = kernel.descriptors;
    kernel.descriptors.write = (fd, bytes) => {
      datagrams++;
      return write(fd, bytes);
    };
    const requests = [
      changing(eth0, { up: false }),
      ...redirecting(eth0, eth1),
      changing(eth1, { up: true }),
    ];
    expect(await route.carryOut(requests)).toEqual([undefined, undefined, undefined, undefined]);
    const journal = ["set eth0 down", "ingress eth0", "redirect eth0 > eth1", "set eth1 up"];
    expect(kernel.journal).toEqual(journal);
    expect(datagrams).toBe(1);
    kernel.refusals.set("ingress eth0", 17);
    kernel.refusals.set("set eth1 up", 1);
    const outcomes = await route.carryOut(requests);
    expect(outcomes.map((outcome) => outcome?.message)).toEqual([
      undefined,
      "redirect eth0 to eth1: EEXIST",
      undefined,
      "set eth1 up=true: EPERM",
    ]);
    // What was behind the first refusal was carried out all the same.
    expect(kernel.journal.slice(4)).toEqual(journal);
  });

  it("reports a socket that cannot be written to", async () => {
    const { kernel, route } = open();
    kernel.descriptors.write = () => {
      throw new SystemError("EPERM", "write", "100");
    };
    await expect(route.link("eth0")).rejects.toThrow("look up eth0: EPERM");
    kernel.descriptors.write = () => null;
    await expect(route.link("eth0")).rejects.toThrow(RouteError);
  });

  it("fails what is under way, and all that is asked later, once it is closed", async () => {
    const { kernel, route } = open();
    kernel.silent = true;
    const failed = expect(route.links()).rejects.toThrow("list network interfaces: EPIPE");
    route.close();
    route.close();
    await failed;
    expect(kernel.socketClosed).toBe(true);
    await expect(route.links()).rejects.toThrow("EPIPE");
  });
});

describe("removals", () => {
  it("are told once, to those who wait for that interface", () => {
    const { kernel, route } = open();
    const heard: string[] = [];
    route.onRemoval(2, () => heard.push("eth0"));
    route.onRemoval(3, () => heard.push("eth1"));
    route.onRemoval(3, () => heard.push("eth1 too"))();
    kernel.remove("eth1");
    expect(heard).toEqual(["eth1"]);
  });

  it("are found out when the kernel had to drop its word of them", async () => {
    const { kernel, route } = open();
    const heard: string[] = [];
    route.onRemoval(2, () => heard.push("eth0"));
    route.onRemoval(3, () => heard.push("eth1"));
    kernel.remove("eth1", "lost");
    await settle();
    expect(heard).toEqual(["eth1"]);
  });
});
