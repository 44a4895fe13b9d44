/** QEMU's arguments for the emulated machine. */

import type { Dom0Image, Dom0Release } from "./dom0-image.ts";

export interface MachineOptions {
  /** MiB of the whole machine, 6144 by default; only what is used costs memory here. */
  readonly memory?: number;
  /** MiB of dom0, 1536 by default. */
  readonly dom0Memory?: number;
  readonly vcpus?: number;
  /** Further arguments for QEMU: devices, netdevs. */
  readonly qemuArgs?: readonly string[];
  /** Further words for Xen's and for dom0's kernel command line. */
  readonly xenArgs?: readonly string[];
  readonly kernelArgs?: readonly string[];
  /** Emulated time follows executed instructions: slower, single-threaded, the same figures each run, within 1 %. */
  readonly deterministic?: boolean;
}

/**
 * What says that a `rep movsb` or `rep stosb` is the fastest way to copy or clear memory, as it is on a processor. QEMU's emulation
 * says so too, and takes a byte a turn, where the ways of those who do not trust in it take eight.
 */
const SLOW_STRINGS: Readonly<Record<Dom0Release, string>> = {
  trixie: "-erms,-fsrm,-fzrm,-fsrs,-fsrc",
  bookworm: "-erms,-fsrm", // QEMU 7.2 knows no others
};

/** Devices that a machine can have to be passed through, by where dom0 finds each: slots that QEMU gives nobody. */
export const PASSTHROUGH = {
  /** Conventional PCI, one interrupt line; dom0 has the other end of its cable as a virtio NIC. */
  e1000: "0000:00:10.0",
  /** MSI-X, its table in the same BAR as its registers. */
  nvme: "0000:00:11.0",
} as const;

/** MAC addresses of the passed-through e1000 and of dom0's NIC at the other end of its cable. */
export const CABLE = { e1000: "52:54:00:00:03:01", dom0: "52:54:00:00:03:02" } as const;

/**
 * Further arguments for QEMU: an IOMMU that Xen takes for passthrough (QEMU emulates AMD's well enough, Intel's
 * not for this processor), and the devices of {@link PASSTHROUGH}.
 *
 * @param nvmeImage raw image behind the NVMe disk, which is written to
 */
export function passthroughDevices(nvmeImage: string): string[] {
  const at = (address: string) => `addr=${address.replace(/^.*:/, "")}`;
  const values: readonly (readonly [string, string])[] = [
    ["-device", "amd-iommu,intremap=on"],
    ["-netdev", "hubport,id=cable0,hubid=1"],
    ["-netdev", "hubport,id=cable1,hubid=1"],
    ["-device", `e1000,netdev=cable0,mac=${CABLE.e1000},${at(PASSTHROUGH.e1000)}`],
    ["-device", `virtio-net-pci,netdev=cable1,mac=${CABLE.dom0},romfile=`],
    ["-drive", `if=none,id=passed,file=${nvmeImage.replaceAll(",", ",,")},format=raw,cache=unsafe`],
    ["-device", `nvme,drive=passed,serial=passed,${at(PASSTHROUGH.nvme)}`],
  ];
  return values.flat();
}

/** What the machine needs to run, beside its definition. */
export interface MachineFiles {
  /** Gets the console of Xen and dom0. */
  readonly console: string;
  /** Socket of the control channel, made by QEMU. */
  readonly control: string;
  /** dom0's disk. */
  readonly disk: { readonly file: string; readonly format: "raw" | "qcow2" };
  /** Keep what dom0 writes in the disk's file; otherwise it is forgotten. */
  readonly keep?: boolean;
}

/**
 * The arguments. Two machines with the same options and image are the same to Xen, whatever their files: the
 * saved state of one can be loaded into the other.
 *
 * @param emulator the release whose QEMU is the machine
 */
export function machineArguments(
  options: MachineOptions,
  image: Dom0Image,
  files: MachineFiles,
  emulator: Dom0Release = "trixie",
): string[] {
  const { memory = 6144, dom0Memory = 1536, vcpus = 2, deterministic = false } = options;
  const xen = [
    `dom0_mem=${dom0Memory}M,max:${dom0Memory}M dom0_max_vcpus=1`,
    // With credit, the one that wakes preempts the other, or not, by credits left from before: an access costs 2,300 instructions
    // more for some tens of milliseconds. Xen's own default leaves alone who has run for less than a millisecond.
    `com1=115200,8n1 console=com1 loglvl=all guest_loglvl=all sched=${deterministic ? "credit2" : "credit"} noreboot`,
    // Under emulation, with lazy switching, a domain now and then found another's vector registers in its own:
    // memory that was to be zeroed held pointers of another process, and shells in dom0 died.
    "spec-ctrl=eager-fpu",
    "bootscrub=0", // touching all memory takes seconds here, and real memory of this machine
    ...(options.xenArgs ?? []),
  ];
  const kernel = ["console=hvc0 panic=1", ...(options.kernelArgs ?? [])];
  const values: readonly (readonly [string, string])[] = [
    ["-accel", deterministic ? "tcg,thread=single" : "tcg,thread=multi"],
    ...(deterministic ? ([["-icount", "shift=0,sleep=off"]] as const) : []),
    // Not reserved: what is never used must not be refused by a machine that has less than all of it.
    ["-object", `memory-backend-ram,id=ram,size=${memory}M,reserve=off`],
    ["-machine", "q35,memory-backend=ram"],
    // With SMAP or SMEP dom0 dies at boot under QEMU's emulated SVM.
    // With x2APIC, QEMU's counting of instructions ends at the first write to the timer's register ("Bad icount read").
    // An invariant TSC, which QEMU's emulation has and does not tell of: without one Xen emulates each RDTSC of all
    // domains but dom0, which is not so on a processor of today (xen: arch/x86/time.c, tsc_set_info()).
    // Without its promise of fast string instructions: whoever believes it clears and copies memory byte by byte here.
    [
      "-cpu",
      `max,-smap,-smep,${SLOW_STRINGS[emulator]},+invtsc,x-force-features=on${deterministic ? ",-x2apic" : ""}`,
    ],
    ["-smp", String(vcpus)],
    ["-m", `${memory}M`],
    ["-display", "none"],
    ["-serial", `file:${files.console}`],
    ["-kernel", image.xen],
    ["-initrd", `${image.kernel} ${kernel.join(" ")},${image.initrd}`],
    ["-append", xen.join(" ")],
    [
      "-drive",
      `file=${files.disk.file},format=${files.disk.format},if=virtio,snapshot=${files.keep ? "off" : "on"},cache=unsafe`,
    ],
    ["-device", "virtio-serial-pci"],
    ["-chardev", `socket,id=control,path=${files.control},server=on,wait=off`],
    ["-device", "virtserialport,chardev=control,name=lab.control"],
  ];
  return ["-nodefaults", "-no-reboot", ...values.flat(), ...(options.qemuArgs ?? [])];
}
