import { describe, expect, test } from "vitest";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { type LaunchFacts, qemuCommandLine } from "../../../agent/qemu/arguments.ts";
import { readDmArguments } from "../../../agent/qemu/dm-argv.ts";
import { ArgumentError } from "../../../agent/qemu/errors.ts";

const facts: LaunchFacts = {
  program: "/q",
  agentMonitor: 3,
  toolstackMonitor: 4,
  taps: new Map(),
  config: { diskCache: "none", diskAio: "io_uring", sandbox: true },
};
const base = "-xen-domid 5 -nodefaults -no-user-config";

function build(text: string, more: Partial<LaunchFacts> = {}) {
  const dm = readDmArguments(`${base} ${text}`.trim().split(" ").map(encodeText), 5);
  const { argv, notes } = qemuCommandLine(dm, { ...facts, ...more });
  return { line: argv.map(decodeText).join(" "), notes };
}

const before = `/q -sandbox on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny ${base}`;
const monitors =
  "-chardev socket,id=stubdom-agent,fd=3 -mon chardev=stubdom-agent,mode=control " +
  "-chardev socket,id=stubdom-toolstack,fd=4,server=on,wait=off -mon chardev=stubdom-toolstack,mode=control";
const whole = (middle: string) => `${before}${middle && ` ${middle}`} -audio none ${monitors}`;

describe("what is left as it is", () => {
  test.each([
    "",
    "-display none -serial null -name g -k de -usb -usbdevice tablet -net none -m 56",
    "-machine xenfv,suppress-vmdesc=on -device VGA,vgamem_mb=16 -boot order=cda -smp 1,maxcpus=4",
    "-drive if=none,readonly=on,id=ide-5632 -device ide-cd,id=ide-5632,drive=ide-5632,bus=ide.1,unit=0",
    "-drive file=x.qcow2,format=qcow2,cache=writeback",
    "-netdev user,id=u -chardev null,id=mine -incoming tcp:0:1 -run-with async-teardown=on stray -S",
    "-constructor x -toString y",
    "-usb -usbdevice tablet -usbdevice mouse -usbdevice keyboard",
    "-device piix3-usb-uhci,id=usb",
    "-device ich9-usb-ehci1,id=usb,addr=0x1d.0x7,multifunction=on",
    "-device ich9-usb-uhci1,masterbus=usb.0,firstport=0,addr=0x1d.0,multifunction=on",
    "-device nec-usb-xhci,id=usb",
    "-device intel-hda -device hda-duplex -device ac97 -device es1370 -device sb16",
    "-device VGA,vgamem_mb=16 -device VGA,vgamem_mb=512 -device VGA,vgamem_mb=513 -device VGA,vgamem_mb=x",
    "-device VGA -device VGA,vgamem_mb=16 -device cirrus-vga,vgamem_mb=8 -device cirrus-vga,vgamem_mb=16",
    "-device ide-cd,id=ide-5696,bus=ide.1,unit=1 -device ide-hd,bus=ahci0.5,drive=x",
    "-device lsi53c895a -device scsi-hd,drive=scsi0-hd6,scsi-id=6",
    "-device xen-pvdevice,device-id=0xc000 -device constructor,x=y",
  ])("%s", (text) => {
    expect(build(text)).toEqual({ line: whole(text), notes: [] });
  });

  test("bytes that are not UTF-8", () => {
    const name = Uint8Array.of(0x67, 0xff, 0x2c, 0xc3);
    const dm = readDmArguments([...`${base} -name`.split(" ").map(encodeText), name], 5);
    expect(qemuCommandLine(dm, facts).argv).toContainEqual(name);
  });
});

test("a serial port's console is no terminal to QEMU, which would take its modem lines from there", () => {
  const { line } = build("-serial /dev/hvc3 -serial /dev/hvc4 -serial pty");
  expect(line).toBe(whole("-serial pipe:/dev/hvc3 -serial pipe:/dev/hvc4 -serial pty"));
});

test("a fifth serial port is not opened: QEMU would not emulate it", () => {
  const ports = (numbers: number[], prefix = "") =>
    numbers.map((n) => `-serial ${prefix}/dev/hvc${n}`).join(" ");
  expect(build(ports([3, 4, 5, 6, 7, 8])).line).toBe(whole(ports([3, 4, 5, 6], "pipe:")));
});

test("with a screen, it is served to the agent, and the layout of the keyboard stays in dom0", () => {
  const screen = ["-vnc", "unix:/s"];
  const { line, notes } = build("-display none -k de -usb", { screen });
  expect(line).toBe(`${before} -display none -usb -audio none -vnc unix:/s ${monitors}`);
  expect(notes).toEqual([expect.stringMatching(/-k \S+ left out: dom0.s VNC server has the layout$/)]);
});

describe("what is replaced", () => {
  test("a TAP device by its descriptor", () => {
    const device = "-device e1000,id=nic1,netdev=net1,mac=00:16:3e:00:00:02";
    const netdev = "-netdev type=tap,id=net1,ifname=vif5.1-emu,br=xenbr0,script=no,downscript=no";
    expect(build(`${device} ${netdev}`, { taps: new Map([["net1", 9]]) }).line).toBe(
      whole(`${device} -netdev type=tap,id=net1,fd=9`),
    );
    expect(() => build(`${device} ${netdev}`)).toThrow("no TAP device for net1");
  });

  test("the boot ROM of NICs from the fifth on by none, with a note: QEMU has no memory for more", () => {
    const nics = (count: number, romfile: string) =>
      Array.from({ length: count }, (_, n) => {
        const model = n % 2 === 0 ? "rtl8139" : "e1000";
        const device = `-device ${model},id=nic${n},netdev=net${n},mac=00:16:3e:00:00:0${n}`;
        return `${device}${n < 4 ? "" : romfile} -netdev user,id=net${n}`;
      }).join(" ");
    expect(build(nics(4, ""))).toEqual({ line: whole(nics(4, "")), notes: [] });
    const { line, notes } = build(nics(6, ""));
    expect(line).toBe(whole(nics(6, ",romfile=")));
    expect(notes).toEqual([
      expect.stringMatching(/^dm-argv\/021: -device "rtl8139,id=nic4,.* has no boot ROM: .* of 4 NICs, /),
      expect.stringMatching(/^dm-argv\/025: -device "e1000,id=nic5,.* has no boot ROM: /),
    ]);
    // Of device_model_args_hvm, and with a ROM of their own.
    expect(build(nics(5, ",romfile=mine"))).toEqual({ line: whole(nics(5, ",romfile=mine")), notes: [] });
    expect(build(`${nics(4, "")} -device driver=e1000`).line).toContain("-device driver=e1000,romfile= ");
  });

  test.each([
    ["none", "io_uring", "cache.direct=on,aio=io_uring"],
    ["none", "native", "cache.direct=on,aio=native"],
    ["writeback", "native", "cache.direct=off,aio=threads"],
    ["writeback", "threads", "cache.direct=off,aio=threads"],
  ] as const)("a disk's cache and aio: %s, %s", (diskCache, diskAio, expected) => {
    const drive = "-drive file=/dev/xvda,if=ide,index=0,media=disk,format=host_device";
    expect(build(`${drive},cache=writeback`, { config: { ...facts.config, diskCache, diskAio } }).line).toBe(
      whole(`${drive},${expected},discard=unmap`),
    );
  });

  test("nothing is discarded on a read-only disk, nor against device_model_args_hvm", () => {
    const disk = "-drive file=/dev/xvdb,id=scsi0-hd1,format=host_device,if=none,readonly=on";
    expect(build(`${disk},cache=writeback`).line).toBe(whole(`${disk},cache.direct=on,aio=io_uring`));
    const cd = "-drive if=none,readonly=on,id=ide-5632,file=/dev/xvdc,format=host_device";
    expect(build(cd).line).toBe(whole(`${cd},cache.direct=on,aio=io_uring`));
    const kept = "-drive file=/dev/xvda,format=host_device,discard=ignore";
    expect(build(kept).line).toBe(whole(`${kept},cache.direct=on,aio=io_uring`));
  });

  test("the source of a restore", () => {
    const text = "-incoming $STUBDOM_RESTORE_INCOMING_ARG";
    expect(build(text, { incoming: "fd:7" }).line).toBe(whole("-incoming fd:7"));
    expect(() => build(text)).toThrow("there is no saved state");
  });

  test("-no-acpi, which QEMU no longer knows", () => {
    expect(build("-no-acpi -m 8").line).toBe(whole("-machine acpi=off -m 8"));
  });
});

describe("what is left out, with a note", () => {
  test.each([
    ["-chardev socket,id=libxl-channel0,path=/run/x,server=on,wait=off", "channel"],
    ["-chardev pty,id=libxl-channel1", "channel"],
    ["-chroot /run/xen/qemu-root-5", "a directory of dom0"],
    ["-run-with chroot=/run/xen/qemu-root-5", "directory"],
    ["-run-with user=1000:1000", "user"],
    ["-runas xen-qemuuser-range-base", "a user of dom0"],
    ["-xen-domid-restrict", "restricts a stub domain"],
    ["-daemonize", "PID 1"],
  ])("%s", (text, why) => {
    const { line, notes } = build(`${text} -m 8`);
    expect(line).toBe(whole("-m 8"));
    expect(notes).toHaveLength(1);
    expect(notes[0]).toMatch(/^dm-argv\/005: -/);
    expect(notes[0]).toContain(why);
  });
});

describe("what is refused", () => {
  test.each([
    ["-kernel /boot/vmlinuz", 'dm-argv/005 -kernel "/boot/vmlinuz": direct kernel boot'],
    ["-initrd /boot/initrd", "-initrd"],
    ["-xen-attach", "dm-argv/005 -xen-attach: is for the QEMU of a PV guest; a stub domain serves"],
    [
      "-device qxl-vga,vram_size_mb=64",
      'QXL here, which serves SPICE alone; choose vga="stdvga" or "cirrus"',
    ],
    [
      "-device adlib",
      'dm-argv/005 -device "adlib": QEMU has no such sound device here; choose soundhw="ac97"',
    ],
    ["-device driver=gus", "choose soundhw="],
    ["-device cs4231a", "choose soundhw="],
    ["-device usb-host,hostbus=1,hostaddr=2", "pass their USB controller, by pci="],
    ["-machine xenfv,igd-passthru=on", "take gfx_passthru= out"],
    ["-device usb-redir,chardev=usbrc1,id=usbrc1", "take usbredirection= and spice= out"],
    ["-chardev spicevmc,name=usbredir,id=usbrc1", "take usbredirection= and spice= out"],
    ["-device virtio-net,id=nic0,netdev=net0,mac=00:16:3e:00:00:01", "choose model=e1000 or model=rtl8139"],
    ["-device cirrus-vga,vgamem_mb=32", "a Cirrus card has 4, 8, 16 MB; choose videoram=8 or 16"],
    [
      "-device VGA,vgamem_mb=24",
      'dm-argv/005 -device "VGA,vgamem_mb=24": a stdvga has a power of two of MB, and not 24; choose videoram=16 or 32',
    ],
    ["-device VGA,vgamem_mb=20", "choose videoram=16 or 32"],
    ["-device VGA,vgamem_mb=48", "choose videoram=32 or 64"],
    ["-device VGA,vgamem_mb=100", "choose videoram=64 or 128"],
    ["-device VGA,vgamem_mb=511", "choose videoram=256 or 512"],
    ["-device scsi-hd,drive=scsi0-hd7,scsi-id=7", "room for 7 disks, sda to sdg; name the disk xvdX"],
    [
      "-device ide-cd,id=ide-51776,drive=d,bus=ide.2,unit=0",
      "room for four drives, hda to hdd; give the CD drive",
    ],
    [
      "-usbdevice host:1.2",
      'dm-argv/005 -usbdevice "host:1.2": QEMU has no such USB device here; usbdevice=',
    ],
    ["-usbdevice disk:/x", "usbdevice= takes tablet, mouse, keyboard"],
  ])("%s", (text, message) => {
    expect(() => build(text)).toThrow(ArgumentError);
    expect(() => build(text)).toThrow(message);
  });
});

describe("what is added", () => {
  test("only what is missing", () => {
    const dm = readDmArguments("-xen-domid 5 -audiodev x -sandbox off".split(" ").map(encodeText), 5);
    expect(qemuCommandLine(dm, facts).argv.map(decodeText).join(" ")).toBe(
      `/q -nodefaults -no-user-config -xen-domid 5 -audiodev x -sandbox off ${monitors}`,
    );
  });

  test("no sandbox when the configuration says so", () => {
    const { line } = build("", { config: { ...facts.config, sandbox: false } });
    expect(line).toBe(`/q ${base} -audio none ${monitors}`);
  });
});
