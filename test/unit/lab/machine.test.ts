import { expect, test } from "vitest";
import { machineArguments, PASSTHROUGH, passthroughDevices } from "../../../scripts/lab/machine.ts";
import { pciSpec, xlConfig } from "../../../scripts/lab/xl-config.ts";

const image = { xen: "/xen", kernel: "/kernel", initrd: "/initrd", disk: "/disk" };
const files = { console: "/log", control: "/control", disk: { file: "/disk", format: "raw" } } as const;

test("a machine with devices to pass through has an IOMMU before them, and each where it is looked for", () => {
  const qemuArgs = passthroughDevices("/tmp/a,b.img");
  const args = machineArguments({ qemuArgs }, image, files);
  const devices = args.filter((_, index) => args[index - 1] === "-device");
  const at = (start: string) => devices.findIndex((device) => device.startsWith(start));
  expect(at("amd-iommu,intremap=on")).toBeLessThan(at("e1000,"));
  expect(devices[at("e1000,")]).toContain(`addr=${PASSTHROUGH.e1000.slice("0000:00:".length)}`);
  expect(devices[at("nvme,")]).toContain("addr=11.0");
  // QEMU takes a doubled comma for one.
  expect(args).toContainEqual(expect.stringContaining("file=/tmp/a,,b.img,"));
});

test("a guest's devices of the host, as xl reads them", () => {
  const text = xlConfig({
    name: "x",
    pci: [{ address: "0000:00:03.0" }, { address: "0000:00:04.0", permissive: true }],
  });
  expect(text).toContain('pci = [ "0000:00:03.0", "0000:00:04.0,permissive=1" ]\n');
  expect(xlConfig({ name: "x" })).not.toContain("pci");
  expect(pciSpec({ address: "03:00.0", permissive: false })).toBe("03:00.0");
});
