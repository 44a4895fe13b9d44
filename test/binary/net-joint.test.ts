import { once } from "node:events";
import { fileURLToPath } from "node:url";
import { afterEach, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { buildAgent } from "../../bundler/agent.ts";
import { buildRoot } from "../../bundler/root.ts";
import { Driver, Namespace } from "./net-joint/namespaces.ts";

/**
 * The joint on a real kernel. Three network namespaces stand for dom0's side of the network, the stub domain
 * and the guest; a veth pair stands for netfront and netback (and like netback hands over blank checksums
 * and segments of up to 64 KiB). What runs in the middle is the joint's TypeScript compiled as the agent is.
 */
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const MAC = "00:16:3e:11:22:33";
const nic = { devid: 0, mac: MAC };

let program = "";
let dom0: Namespace;
let stubdom: Namespace;
let guest: Namespace;
let drivers: Driver[] = [];

beforeAll(async () => {
  ({ program } = await buildAgent(await buildRoot(), here("net-joint/driver.ts")));
}, 600_000);

beforeEach(async () => {
  [dom0, stubdom, guest] = await Promise.all([Namespace.create(), Namespace.create(), Namespace.create()]);
  dom0.ip(`link add vif0 type veth peer name eth0 netns ${stubdom.pid} address ${MAC}`);
  // Any other frame than the stub domain's would be this side's own.
  dom0.run("sysctl", "-qw", "net.ipv6.conf.vif0.disable_ipv6=1");
  // A packet filter on bridges drops what is no valid IP; the stub domain's kernel has no packet filter.
  for (const table of ["iptables", "ip6tables", "arptables"])
    stubdom.run("sysctl", "-qew", `net.bridge.bridge-nf-call-${table}=0`);
});

afterEach(async () => {
  await Promise.all(drivers.map((driver) => driver.end()));
  drivers = [];
  await Promise.all([dom0, stubdom, guest].map((namespace) => namespace?.end()));
});

async function drive(namespace: Namespace, task: object): Promise<Driver> {
  const driver = new Driver(program, namespace, task);
  drivers.push(driver);
  await driver.event("joined");
  return driver;
}

function setMtu(mtu: number): void {
  dom0.ip(`link set vif0 mtu ${mtu}`);
  stubdom.ip(`link set eth0 mtu ${mtu}`);
}

/** Gives the network and the guest an address each. */
function addresses(mtu: number): void {
  stubdom.ip(`link set guest0 netns ${guest.pid}`);
  guest.ip(`link set guest0 up mtu ${mtu}`);
  guest.ip("address add 10.9.0.2/24 dev guest0");
  dom0.ip("link set vif0 up");
  dom0.ip("address add 10.9.0.1/24 dev vif0");
}

async function transfer(from: Namespace, to: Namespace, address: string, megabytes: number) {
  const listener = to.spawn("node", here("net-joint/transfer.mjs"), "listen", address);
  if (listener.stdout !== null) await once(listener.stdout, "data");
  const sender = from.spawn("node", here("net-joint/transfer.mjs"), "connect", address, String(megabytes));
  let output = "";
  sender.stdout?.on("data", (chunk) => {
    output += chunk;
  });
  await Promise.all([once(sender, "close"), once(listener, "close")]);
  return JSON.parse(output) as { same: boolean; seconds: number };
}

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

describe.each(["tc", "bridge"] as const)("joined by %s", (kind) => {
  it.each([1500, 9000])("TCP passes both ways in whole frames of MTU %i", async (mtu) => {
    setMtu(mtu);
    const driver = await drive(stubdom, { kind, nics: [nic], behind: "guest" });
    addresses(mtu);
    const toGuest = await transfer(dom0, guest, "10.9.0.2", 16);
    const fromGuest = await transfer(guest, dom0, "10.9.0.1", 16);
    expect([toGuest.same, fromGuest.same]).toEqual([true, true]);
    driver.tell({ do: "largest", nic: 0 });
    // 14 bytes of Ethernet; QEMU never sees one of the sender's 64 KiB segments.
    expect(await driver.event("largest")).toMatchObject({ bytes: mtu + 14 });
    // What the guest's kernel received with a wrong checksum, it counted.
    const counters = guest.run("cat", "/proc/net/snmp");
    const [names, values] = counters
      .split("\n")
      .filter((line) => line.startsWith("Tcp:"))
      .map((line) => line.split(" "));
    expect(values?.[names?.indexOf("InCsumErrors") ?? -1]).toBe("0");
  });

  it("says nothing of its own, and answers nothing", async () => {
    await drive(stubdom, { kind, nics: [nic], behind: "test" });
    dom0.ip("link set vif0 up");
    dom0.ip("address add 10.9.0.1/24 dev vif0");
    dom0.ip(`neighbour add 10.9.0.3 lladdr ${MAC} dev vif0`);
    dom0.ip("neighbour add 10.9.0.4 lladdr ff:ff:ff:ff:ff:ff dev vif0");
    const knock = `
      const socket = require("node:dgram").createSocket("udp4").bind(() => {
        socket.setBroadcast(true);
        const all = ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.255", "224.0.0.1", "255.255.255.255"];
        Promise.allSettled(all.map((to) => new Promise((done) => socket.send("knock", 7, to, done))))
          .then(() => socket.close());
      });`;
    for (let n = 0; n < 3; n++) {
      dom0.run("node", "-e", knock);
      await pause(1000);
    }
    expect(dom0.received("vif0")).toBe(0);
    expect(stubdom.run("ip", "-json", "address", "show", "dev", "eth0")).not.toContain('"local"');
  });

  it("carries every kind of frame unchanged", async () => {
    const inside = await drive(stubdom, { kind, nics: [nic], behind: "test" });
    dom0.ip("link set vif0 address 00:16:3e:44:55:66");
    const outside = await drive(dom0, {
      kind: "tc",
      nics: [{ devid: 0, mac: "00:16:3e:44:55:66" }],
      behind: "test",
    });
    // A veth passes frames only a while after both ends are up.
    for (const [namespace, name] of [
      [dom0, "vif0"],
      [stubdom, "eth0"],
    ] as const)
      await expect.poll(() => namespace.ip(`link show dev ${name}`)).toContain("state UP");
    const from = "021122334455";
    const fill = (bytes: number) => "5a".repeat(bytes);
    const frames = {
      "to the guest's own MAC": `${MAC.replaceAll(":", "")}${from}0800${fill(46)}`,
      "to somebody else": `0a0000000001${from}0800${fill(46)}`,
      broadcast: `ffffffffffff${from}0806${fill(46)}`,
      "IPv6 multicast": `3333000000fb${from}86dd${fill(46)}`,
      LLDP: `0180c200000e${from}88cc${fill(46)}`,
      "VLAN tag": `0a0000000001${from}81000005 0800${fill(46)}`.replace(" ", ""),
      "two VLAN tags": `0a0000000001${from}88a800078100000508 00${fill(46)}`.replace(" ", ""),
      "IEEE 802.3 length": `0a0000000001${from}0004${fill(46)}`,
      "unknown protocol": `0a0000000001${from}88b5${fill(46)}`,
      "header alone": `0a0000000001${from}88b5`,
      "one byte": `0a0000000001${from}88b5${fill(1)}`,
      "whole MTU": `0a0000000001${from}88b5${fill(1500)}`,
      ...(kind === "tc" && {
        "spanning tree": `0180c2000000${from}0026${fill(38)}`,
        pause: `0180c2000001${from}8808${fill(46)}`,
        LACP: `0180c2000002${from}8809${fill(46)}`,
      }),
    };
    for (const [name, frame] of Object.entries(frames)) {
      for (const [sender, receiver] of [
        [inside, outside],
        [outside, inside],
      ] as const) {
        const before = receiver.events.length;
        sender.tell({ do: "send", nic: 0, frame });
        const arrived = await receiver.event("frame", before).catch((error) => ({ error: String(error) }));
        expect(arrived, name).toMatchObject({ frame });
      }
    }
    // Each frame once, and nothing else.
    await pause(200);
    const count = (driver: Driver) => driver.events.filter(({ event }) => event === "frame").length;
    expect([count(inside), count(outside)]).toEqual([Object.keys(frames).length, Object.keys(frames).length]);
  });

  it("joins crossed NICs by their MACs", async () => {
    const other = "00:16:3e:11:22:44";
    dom0.ip(`link add vif1 type veth peer name eth1 netns ${stubdom.pid} address ${other}`);
    const nics = [
      { devid: 0, mac: other },
      { devid: 1, mac: MAC.toUpperCase() },
    ];
    const driver = await drive(stubdom, { kind, nics, behind: "test" });
    expect(await driver.event("joined")).toMatchObject({
      joints: [
        ["tap0", "eth1"],
        ["tap1", "eth0"],
      ],
    });
  });

  it("lets nothing pass once it is torn down, and can be joined again", async () => {
    const inside = await drive(stubdom, { kind, nics: [nic], behind: "test" });
    dom0.ip("link set vif0 up");
    inside.tell({ do: "part", nic: 0 });
    await inside.event("ended");
    const links = JSON.parse(stubdom.run("ip", "-json", "link", "show")) as {
      ifname: string;
      flags: string[];
    }[];
    expect(links.map(({ ifname, flags }) => [ifname, flags.includes("UP")])).toEqual([
      ["lo", true],
      ["eth0", false],
    ]);
    expect(stubdom.run("tc", "qdisc", "show", "dev", "eth0")).not.toContain("ingress");
    expect(stubdom.ip("link show dev eth0")).toContain(MAC);
    await inside.end();
    await drive(stubdom, { kind, nics: [nic], behind: "test" });
  });

  it("ends by itself when its netfront goes away", async () => {
    const driver = await drive(stubdom, { kind, nics: [nic], behind: "test" });
    stubdom.ip("link delete dev eth0");
    expect(await driver.event("ended")).toMatchObject({ nic: 0 });
    expect(driver.events).toContainEqual({
      event: "log",
      level: "warn",
      message: expect.stringContaining("eth0 is gone"),
    });
    expect(
      driver.events.filter(({ level, message }) => level === "warn" && !String(message).includes("gone")),
    ).toEqual([]);
  });

  it("goes away with the program that holds it", async () => {
    const driver = await drive(stubdom, { kind, nics: [nic], behind: "test" });
    driver.tell({ do: "close" });
    await driver.event("closed");
    expect(stubdom.ip("-brief link show")).not.toMatch(/tap0|br0/);
  });
});

it("a NIC without an interface is an error that names what is there", async () => {
  const driver = new Driver(program, stubdom, {
    kind: "tc",
    nics: [{ devid: 3, mac: "00:16:3e:00:00:00" }],
    behind: "test",
  });
  drivers.push(driver);
  expect(await driver.event("failed")).toMatchObject({
    error: expect.stringContaining(
      `NIC 3 with MAC 00:16:3e:00:00:00: no interface has that MAC; there are eth0 ${MAC}`,
    ),
  });
});
