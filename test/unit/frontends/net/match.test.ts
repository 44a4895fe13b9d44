import { describe, expect, it } from "vitest";
import type { Link } from "../../../../agent/frontends/net/link-messages.ts";
import {
  type Candidate,
  isCandidate,
  matchNic,
  NoMatchError,
} from "../../../../agent/frontends/net/match.ts";

function link(name: string, mac: string, more: Partial<Link> = {}): Link {
  return {
    index: 1,
    name,
    mac,
    mtu: 1500,
    up: false,
    loopback: false,
    kind: undefined,
    master: undefined,
    ...more,
  };
}

function candidate(name: string, mac: string, nodename?: string): Candidate {
  return { link: link(name, mac), nodename: () => nodename };
}

describe("which netfront belongs to a NIC", () => {
  const crossed = [
    candidate("eth0", "00:16:3e:00:00:02", "device/vif/1"),
    candidate("eth1", "00:16:3e:00:00:01", "device/vif/0"),
  ];

  it("is told by the MAC, not by the order or the name", () => {
    expect(matchNic({ devid: 0, mac: "00:16:3e:00:00:01" }, crossed).name).toBe("eth1");
    expect(matchNic({ devid: 1, mac: "00:16:3e:00:00:02" }, crossed).name).toBe("eth0");
  });

  it("is told by the MAC in either case", () => {
    expect(matchNic({ devid: 0, mac: "00:16:3E:00:00:01" }, crossed).name).toBe("eth1");
  });

  it("is told by the MAC also where sysfs names no node", () => {
    expect(
      matchNic({ devid: 7, mac: "00:16:3e:00:00:05" }, [candidate("eth9", "00:16:3e:00:00:05")]).name,
    ).toBe("eth9");
  });

  it("is told by the frontend's number when two have the same MAC", () => {
    const same = [
      candidate("eth0", "00:16:3e:00:00:01", "device/vif/10"),
      candidate("eth1", "00:16:3e:00:00:01", "device/vif/1"),
    ];
    expect(matchNic({ devid: 1, mac: "00:16:3e:00:00:01" }, same).name).toBe("eth1");
    expect(matchNic({ devid: 10, mac: "00:16:3e:00:00:01" }, same).name).toBe("eth0");
    expect(() => matchNic({ devid: 0, mac: "00:16:3e:00:00:01" }, same)).toThrow(
      "2 interfaces have that MAC and no single one is device/vif/0",
    );
  });

  it("is an error that names the NIC, what is there, and the remedy", () => {
    const nic = { devid: 0, mac: "00:16:3e:00:00:09" };
    expect(() => matchNic(nic, crossed)).toThrow(NoMatchError);
    expect(() => matchNic(nic, crossed)).toThrow(
      "NIC 0 with MAC 00:16:3e:00:00:09: no interface has that MAC; " +
        "there are eth0 00:16:3e:00:00:02 device/vif/1, eth1 00:16:3e:00:00:01 device/vif/0. Give each vif",
    );
    expect(() => matchNic(nic, [])).toThrow("there is no interface. Give each vif");
  });
});

it("an interface of the joint's own is never a candidate", () => {
  const mac = "00:16:3e:00:00:01";
  expect(isCandidate(link("eth0", mac))).toBe(true);
  expect(isCandidate(link("tap0", mac, { kind: "tun" }))).toBe(false);
  expect(isCandidate(link("br0", mac, { kind: "bridge" }))).toBe(false);
  expect(isCandidate(link("lo", "00:00:00:00:00:00", { loopback: true }))).toBe(false);
  expect(isCandidate(link("sit0", ""))).toBe(false);
});
