import { describe, expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { argumentsInOrder, mostArguments, readDmArguments } from "../../../agent/qemu/dm-argv.ts";
import { ArgumentError } from "../../../agent/qemu/errors.ts";

const words = (text: string) => text.split(" ").map(encodeText);
const read = (text: string, target = 5) => readDmArguments(words(text), target);

function problem(act: () => unknown): ArgumentError {
  try {
    act();
  } catch (error) {
    if (error instanceof ArgumentError) return error;
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("the numbered entries", () => {
  const entries = (names: readonly string[]) =>
    names.map((name) => ({ name, value: encodeText(`v${name}`) }));
  const order = (...names: string[]) =>
    argumentsInOrder(entries(names)).map((value) => new TextDecoder().decode(value));

  test("come in the order of their numbers, which is not that of their names", () => {
    expect(order("003", "001", "002")).toEqual(["v001", "v002", "v003"]);
    const many = Array.from({ length: 1200 }, (_, index) => String(index + 1).padStart(3, "0"));
    expect(order(...[...many].sort())).toEqual(many.map((name) => `v${name}`));
  });

  test("may begin with the program's name at 000", () => {
    expect(order("001", "000")).toEqual(["v000", "v001"]);
  });

  test.each([
    [
      ["001", "003"],
      "dm-argv/002: is missing, of 2 arguments; only libxl may write there; create the guest again",
    ],
    [["002", "003"], "dm-argv/001: is missing"],
    [["001", "002", "2"], 'dm-argv/2 "v2": is there twice'],
    [["001", "x\u00e9"], 'dm-argv/x\\xe9 "vx\\xc3\\xa9": is not a number'],
    [["001", "-1"], 'dm-argv/-1 "v-1": is not a number'],
    [["001", "99999999"], "is not a number"],
    [[], "dm-argv: holds no arguments"],
  ])("%j: %s", (names, message) => {
    expect(problem(() => order(...names)).message).toContain(message);
  });
});

describe("what is read", () => {
  test("NICs, disks, serials and whether to restore", () => {
    const dm = read(
      "-xen-domid 5 -serial /dev/hvc3 -serial /dev/hvc4 " +
        "-device e1000,id=nic2,netdev=net2,mac=00:16:3E:00:00:0A -netdev type=tap,id=net2,ifname=vif5.2-emu,br=xenbr0,script=no,downscript=no " +
        "-incoming $STUBDOM_RESTORE_INCOMING_ARG -drive file=/dev/xvda,if=ide,format=host_device " +
        "-drive if=none,readonly=on,id=ide-5632 -drive if=none,id=x,file=/dev/xvdc,format=host_device -drive file=/dev/xvda,if=none,id=again",
    );
    expect(dm).toMatchObject({
      domid: 5,
      nics: [{ netdev: "net2", devid: 2, mac: "00:16:3e:00:00:0a", model: "e1000", tap: "vif5.2-emu" }],
      disks: ["/dev/xvda", "/dev/xvdc"],
      serials: ["/dev/hvc3", "/dev/hvc4"],
      restoring: true,
    });
  });

  test("devices of the host that QEMU is to open at its start", () => {
    const device = "-device xen-pci-passthrough,hostaddr";
    const dm = read(
      `-xen-domid 5 ${device}=0000:03:00.1,permissive=on -device e1000,id=x ${device}=4:1f.7 -name xen-pci-passthrough`,
    );
    expect(dm.passthrough).toEqual([
      { domain: 0, bus: 3, slot: 0, function: 1 },
      { domain: 0, bus: 4, slot: 31, function: 7 },
    ]);
    for (const wrong of ["-device xen-pci-passthrough,id=x", `${device}=03:20.0`]) {
      expect(problem(() => read(`-xen-domid 5 ${wrong}`)).message).toMatch(
        /dm-argv\/003 "xen-pci.*: a passed-through device without hostaddr=.*pci=/,
      );
    }
  });

  test("a value that looks like an option is a value, as in QEMU", () => {
    const dm = read("-name -incoming -xen-domid 5 -nodefaults -append -drive word --no-shutdown");
    expect(dm.options.map(({ name, value }) => [name, value])).toEqual([
      ["name", "-incoming"],
      ["xen-domid", "5"],
      ["nodefaults", ""],
      ["append", "-drive"],
      ["", ""],
      ["no-shutdown", ""],
    ]);
    expect(dm.restoring).toBe(false);
  });

  test("with or without the program's name; places are named as in xenstore", () => {
    expect(read("qemu-system-i386 -xen-domid 5 -nodefaults").options[1]?.number).toBe(3);
    expect(read("-xen-domid 5 -nodefaults").options[1]?.number).toBe(3);
  });

  test("bytes that are not UTF-8 stay as they are", () => {
    const name = Uint8Array.of(0xff, 0x2d, 0xc3);
    const argv = [...words("-xen-domid 5 -name"), name];
    expect(readDmArguments(argv, 5).options[1]?.tokens[1]).toEqual(name);
  });
});

describe("what is refused", () => {
  test.each([
    ["", "dm-argv: no -xen-domid"],
    ["-nodefaults", "dm-argv: no -xen-domid; these are no arguments of libxl's; create the guest again"],
    ["-xen-domid", 'dm-argv/001 "": -xen-domid is not the number of a domain'],
    ["-xen-domid x1", 'dm-argv/001 "x1": -xen-domid is not the number of a domain'],
    ["-xen-domid 0x5", "is not the number of a domain"],
    ["-xen-domid 999999", "is not the number of a domain"],
    ["-nodefaults -xen-domid 6", 'dm-argv/002 "6": -xen-domid differs from this stub domain\'s target 5'],
    ["-xen-domid 5 -xen-domid 6", 'dm-argv/003 "6": -xen-domid differs'],
    ["-xen-domid 5 -netdev tap,id=net0", "without a device that names it"],
    ["-xen-domid 5 -netdev type=tap,id=net0 -device e1000,netdev=net0", "and a MAC"],
    ["-xen-domid 5 -netdev type=tap,id=net0 -device e1000,netdev=net0,mac=1:2", "and a MAC"],
    [
      "-xen-domid 5 -netdev type=tap,id=lan -device e1000,netdev=lan,mac=00:16:3e:00:00:01",
      "without an id netN",
    ],
  ])("%s", (argv, message) => {
    expect(problem(() => read(argv)).message).toContain(message);
  });

  test("a NUL byte", () => {
    expect(problem(() => read("-xen-domid 5 -name a\0b")).message).toBe(
      'dm-argv/004 "a\\x00b": holds a NUL byte; no program can be given that; remove it',
    );
  });

  test("an argument of 100 KB, of which the message shows the beginning", () => {
    const { message } = problem(() => read(`-xen-domid 5 -name ${"n".repeat(100_000)}`));
    expect(message).toContain(`dm-argv/004 "${"n".repeat(60)}"... (100000 bytes): is too long`);
    expect(message.length).toBeLessThan(300);
    expect(() => read(`-xen-domid 5 -name ${"n".repeat(4096)}`)).not.toThrow();
  });

  test("more arguments than any guest has", () => {
    const many = (count: number) => read(`-xen-domid 5${" -usb".repeat(count - 2)}`);
    expect(many(mostArguments).options).toHaveLength(mostArguments - 1);
    expect(problem(() => many(mostArguments + 1)).message).toContain("4097 arguments; at most 4096");
  });
});
