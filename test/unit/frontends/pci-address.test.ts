import { describe, expect, test } from "vitest";
import {
  type DeviceNodes,
  deviceAt,
  formatPciAddress,
  type PassedThroughDevice,
  parsePciAddress,
  readDeviceNodes,
} from "../../../agent/frontends/pci-address.ts";

const address = (text: string) => {
  const parsed = parsePciAddress(text);
  if (parsed === undefined) throw new Error(text);
  return parsed;
};

describe("an address", () => {
  test.each([
    ["0000:03:00.0", "0000:03:00.0"],
    ["03:00.0", "0000:03:00.0"],
    ["ffff:ff:1f.7", "ffff:ff:1f.7"],
    ["FFFF:FF:1F.7", "ffff:ff:1f.7"],
    ["0:3:0.1", "0000:03:00.1"],
    ["0000:00:01.01", "0000:00:01.1"],
  ])("%s is %s", (text, canonical) => {
    expect(formatPciAddress(address(text))).toBe(canonical);
    expect(parsePciAddress(canonical)).toEqual(parsePciAddress(text));
  });

  test.each([
    "",
    "0000:03:00",
    "03.0",
    "0000:03:20.0",
    "0000:03:00.8",
    "0000:03:00.10",
    "10000:03:00.0",
    "0000:103:00.0",
    "0000:03:00.0 ",
    " 0000:03:00.0",
    "0000:03:00.0\n",
    "-1:03:00.0",
    "../03:00.0",
    "0000:03:00.x",
  ])("is not %j", (text) => expect(parsePciAddress(text)).toBeUndefined());
});

describe("the backend's nodes of one device", () => {
  const nodes: DeviceNodes = {
    dev: "0000:03:00.1",
    vdev: "0000:00:00.01",
    state: "3",
    opts: "msitranslate=0,power_mgmt=0,permissive=0,rdm_policy=strict",
  };
  test.each<[string, Partial<DeviceNodes>, Partial<PassedThroughDevice> | string]>([
    [
      "exported",
      {},
      { host: address("03:00.1"), local: address("00:00.1"), leaving: false, permissive: false },
    ],
    ["not exported yet", { vdev: undefined, state: "1" }, { local: undefined, leaving: false }],
    ["without a state", { state: undefined, opts: undefined }, { leaving: false, permissive: false }],
    ["permissive", { opts: "msitranslate=0,permissive=1" }, { permissive: true }],
    ["not permissive by another's name", { opts: "unpermissive=1,permissive=10" }, { permissive: false }],
    ["being detached", { state: "5" }, { leaving: true }],
    ["at its own address", { vdev: "0000:03:00.01" }, { local: address("03:00.1") }],
    ["a strange host address", { dev: "3:0" }, "dev"],
    ["a strange address here", { vdev: "" }, "vdev"],
  ])("%s", (_, changed, expected) => {
    const read = readDeviceNodes({ ...nodes, ...changed });
    if (typeof expected === "string") expect(read).toBe(expected);
    else expect(read).toMatchObject(expected);
  });
});

describe("which device stands for which", () => {
  const device = (host: string, local: string | undefined, leaving = false): PassedThroughDevice => ({
    host: address(host),
    local: local === undefined ? undefined : address(local),
    leaving,
    permissive: false,
  });
  const devices = [
    // Two functions of one device, then the same slot on two other buses, then one in another domain.
    device("0000:03:00.0", "00:00.0"),
    device("0000:03:00.1", "00:00.1"),
    device("0000:04:00.0", "00:01.0"),
    device("0000:05:00.0", "00:02.0"),
    device("0001:03:00.0", "00:03.0"),
    device("0000:06:00.0", "00:04.0", true),
    device("0000:07:00.0", undefined),
  ];
  test.each([
    ["0000:03:00.0", "0000:00:00.0"],
    ["03:00.1", "0000:00:00.1"],
    ["0000:04:00.0", "0000:00:01.0"],
    ["0000:05:00.0", "0000:00:02.0"],
    ["0001:03:00.0", "0000:00:03.0"],
    ["0000:06:00.0", undefined],
    ["0000:07:00.0", undefined],
    ["0000:08:00.0", undefined],
  ])("%s is %s here", (host, local) => {
    const found = deviceAt(devices, address(host))?.local;
    expect(found && formatPciAddress(found)).toBe(local);
  });

  test("one that was detached and attached again is the new one", () => {
    const again = [...devices, device("0000:06:00.0", "00:05.0")];
    expect(deviceAt(again, address("06:00.0"))?.local).toEqual(address("00:05.0"));
  });
});
