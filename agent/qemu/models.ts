/**
 * Devices that libxl can ask for and that cannot be had, with what to write instead. QEMU is built with what
 * `bundler/qemu/stubdom.mak` lists; without this table it would end a little later, and name its own words for a
 * device where the guest's configuration has others. Pure.
 *
 * What libxl makes of which option: tools/libs/light/libxl_dm.c of Xen 4.17 to 4.20. Any other device comes from
 * device_model_args_hvm=, and is QEMU's to judge.
 */
import { optionValue } from "./text.ts";

/** Why a device cannot be had, and what to do. */
export interface Unavailable {
  readonly problem: string;
  readonly remedy: string;
}

const sound = 'choose soundhw="ac97", "es1370", "hda" or "sb16"';
const graphics = 'choose vga="stdvga" or "cirrus"';

const absent: Readonly<Record<string, Unavailable>> = {
  adlib: { problem: "QEMU has no such sound device here", remedy: sound },
  cs4231a: { problem: "QEMU has no such sound device here", remedy: sound },
  gus: { problem: "QEMU has no such sound device here", remedy: sound },
  "qxl-vga": { problem: "QEMU has no QXL here, which serves SPICE alone", remedy: graphics },
  "usb-host": {
    problem: "USB devices of the host are dom0's, and do not reach into a stub domain",
    remedy: "pass their USB controller, by pci=, in place of usbdev=",
  },
  "usb-redir": {
    problem: "SPICE, which brings USB devices from afar, does not reach into a stub domain",
    remedy: "take usbredirection= and spice= out of the guest's configuration",
  },
};

/** NICs by the names that `model=` takes. */
const nics = ["e1000", "rtl8139"];
/**
 * NICs that get a boot ROM. QEMU asks Xen for the memory of each, 256 KiB, and libxl lets a guest have 1088 KiB more
 * than its own, of which a graphics card's ROM takes 64: a fifth ends QEMU with `xen: failed to populate ram`.
 */
export const nicsWithRom = 4;
/** MB; hw/display/cirrus_vga.c refuses any other. */
const cirrusMemory = ["4", "8", "16"];
/**
 * MB. QEMU makes the next power of two of what it is told, 512 at most (`vga_common_init`), and libxl allows for just
 * what it told: Xen refuses the rest, and QEMU ends.
 */
const mostStdvgaMemory = 512;
/** Two channels of two drives; libxl puts a fifth CD drive on a third one. */
const lastIdeChannel = 1;
/** lsi53c895a has 16 SCSI ids in theory, 8 in QEMU, and one is its own. */
const lastScsiId = 6;

/** `parts` of a `-device` option. */
export function isNic(parts: readonly string[]): boolean {
  return nics.includes(modelOf(parts));
}

function modelOf(parts: readonly string[]): string {
  return optionValue(parts, "driver") ?? parts[0] ?? "";
}

/** `parts` of a `-device` option; `undefined` when nothing speaks against it. */
export function unavailable(parts: readonly string[]): Unavailable | undefined {
  const model = modelOf(parts);
  if (Object.hasOwn(absent, model)) return absent[model];
  if (optionValue(parts, "netdev") !== undefined && !nics.includes(model)) {
    const problem = "QEMU has no such network interface here";
    return { problem, remedy: "choose model=e1000 or model=rtl8139 in vif=, or type=vif for a PV one" };
  }
  const memory = optionValue(parts, "vgamem_mb");
  if (model === "cirrus-vga" && memory !== undefined && !cirrusMemory.includes(memory)) {
    const problem = `a Cirrus card has ${cirrusMemory.join(", ")} MB`;
    return { problem, remedy: 'choose videoram=8 or 16, or vga="stdvga"' };
  }
  if (model === "VGA" && Number(memory) < mostStdvgaMemory) {
    const below = powerOfTwoBelow(Number(memory));
    if (Number(memory) > below) {
      const problem = `a stdvga has a power of two of MB, and not ${memory}`;
      return { problem, remedy: `choose videoram=${below} or ${2 * below}` };
    }
  }
  const channel = /^ide\.(\d+)$/.exec(optionValue(parts, "bus") ?? "")?.[1];
  if (Number(channel) > lastIdeChannel) {
    const problem = "the emulated IDE controller has room for four drives, hda to hdd";
    return {
      problem,
      remedy: "give the CD drive in disk= of the guest's configuration one of their letters",
    };
  }
  const target = optionValue(parts, "scsi-id");
  if (model === "scsi-hd" && Number(target) > lastScsiId) {
    const problem = `the emulated SCSI controller has room for ${lastScsiId + 1} disks, sda to sdg`;
    return { problem, remedy: "name the disk xvdX in disk=: the guest then reaches it with PV drivers" };
  }
  return undefined;
}

/** The greatest power of two that is not above `number`; 1 for what is less. */
function powerOfTwoBelow(number: number): number {
  let power = 1;
  while (2 * power <= number) power *= 2;
  return power;
}

/** What `usbdevice=` takes; QEMU dropped host:, disk: and the like from it. */
export const usbDevices: readonly string[] = ["tablet", "mouse", "keyboard"];
