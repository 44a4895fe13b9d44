import { isDecimal } from "../bytes/text.ts";
import { type PciAddress, parsePciAddress } from "../frontends/pci-address.ts";
import { ArgumentError } from "./errors.ts";
import { optionValue, shown, splitOptions, toByteString } from "./text.ts";

/**
 * Longest argument in bytes. xenstore carries no more than 4096 bytes (XENSTORE_PAYLOAD_MAX), a value with its path, so
 * libxl cannot have written a longer one; the kernel would take 128 KiB.
 */
export const longestArgument = 4096;

/** Most arguments. A guest with everything that libxl knows has about two hundred. */
export const mostArguments = 4096;

/** MAX_ISA_SERIAL_PORTS of QEMU's hw/char/serial-isa.c. */
export const serialPorts = 4;

/** One argument as QEMU sees it: an option, with its value when it takes one, or a bare word. */
export interface DmOption {
  /** Without its dashes; empty for a bare word. */
  readonly name: string;
  /** Byte string; empty without a value. */
  readonly value: string;
  /** The arguments that it consists of, as libxl wrote them. */
  readonly tokens: readonly Uint8Array[];
  /** That of its first argument in dm-argv; {@link placeOf} says it in messages. */
  readonly number: number;
}

/** An emulated NIC that is to be joined to the outside. */
export interface EmulatedNic {
  /** QEMU's id of the netdev, `net0`. */
  readonly netdev: string;
  /** libxl's device id: the N of `vifN` and `device/vif/N`. */
  readonly devid: number;
  /** Lower case, with colons. */
  readonly mac: string;
  /** QEMU's model, `e1000`. */
  readonly model: string;
  /** The name that libxl gives the TAP device, `vif5.0-emu`. */
  readonly tap: string;
}

/** What libxl asks for, understood as far as the stub domain needs it. */
export interface DmArguments {
  readonly options: readonly DmOption[];
  readonly domid: number;
  readonly nics: readonly EmulatedNic[];
  /** Block devices that QEMU will open, `/dev/xvda`, in order, each once. */
  readonly disks: readonly string[];
  /** Character devices of the guest's serial ports, `/dev/hvc3`, in order. */
  readonly serials: readonly string[];
  /** Those of ports that QEMU does not have. */
  readonly surplusSerials: readonly string[];
  /** Devices of the host that QEMU opens at its start; libxl names none here, it adds them later by QMP. */
  readonly passthrough: readonly PciAddress[];
  /** QEMU's state is to be restored before the guest goes on. */
  readonly restoring: boolean;
}

/** The text in dm-argv that stands for where QEMU's state comes from on restore. */
export const restorePlaceholder = "$STUBDOM_RESTORE_INCOMING_ARG";

/**
 * The values of `dm-argv/NNN` in order. libxl numbers from 001 on without a gap, with three digits or, from
 * 1000 on, more; so the order is that of the numbers and not of the names.
 *
 * @throws ArgumentError on a name that is no number, a number that is missing or there twice, or no entry
 */
export function argumentsInOrder(
  entries: readonly { readonly name: string; readonly value: Uint8Array }[],
): Uint8Array[] {
  // As a rule xenstored tells them in the order in which libxl wrote them.
  if (entries.length > 0 && entries.every(({ name }, n) => name === nameOf(n + 1)))
    return entries.map(({ value }) => value);
  const byNumber = new Map<number, Uint8Array>();
  for (const { name, value } of entries) {
    const number = isDecimal(name, 6) ? Number(name) : undefined;
    if (number === undefined || byNumber.has(number)) {
      throw new ArgumentError(
        `dm-argv/${shown(name).slice(1, -1)}`,
        shown(toByteString(value)),
        number === undefined ? "is not a number" : "is there twice",
        rewritten,
      );
    }
    byNumber.set(number, value);
  }
  if (byNumber.size === 0) throw new ArgumentError("dm-argv", "", "holds no arguments", writtenWhole);
  // The name of the program, where a toolstack numbers from 0.
  const first = byNumber.has(0) ? 0 : 1;
  return Array.from({ length: byNumber.size }, (_, index) => {
    const value = byNumber.get(first + index);
    if (value !== undefined) return value;
    throw new ArgumentError(place(first + index), "", `is missing, of ${byNumber.size} arguments`, rewritten);
  });
}

const rewritten = "only libxl may write there; create the guest again";
/** libxl ignores that its transaction was refused (`libxl__write_stub_dmargs`, tools/libs/light/libxl_dm.c). */
const writtenWhole =
  "libxl writes all or none: xl has said `xenstore write failed` if one was too long; shorten what is longer than 4000 bytes, device_model_args_hvm= or a name, and create the guest again";

/**
 * Understands QEMU's arguments as libxl writes them for a stub domain.
 *
 * @param argv with or without the program's name at its start
 * @param target the domain that this stub domain serves
 * @throws ArgumentError
 */
export function readDmArguments(argv: readonly Uint8Array[], target: number): DmArguments {
  const options = readOptions(argv);
  const devices: (readonly string[])[] = [];
  const disks = new Set<string>();
  const serials: string[] = [];
  const passthrough: PciAddress[] = [];
  let domid: number | undefined;
  let restoring = false;
  for (const option of options) {
    const { name, value } = option;
    if (name === "xen-domid") domid = readDomid(option, target);
    else if (name === "serial" && value.startsWith("/dev/hvc")) serials.push(value);
    else if (name === "incoming" && value === restorePlaceholder) restoring = true;
    else if (name === "drive") {
      const file = optionValue(splitOptions(value), "file");
      if (file?.startsWith("/dev/")) disks.add(file);
    } else if (name === "device") {
      const parts = splitOptions(value);
      devices.push(parts);
      if (parts[0] === "xen-pci-passthrough") passthrough.push(hostDeviceOf(option, parts));
    }
  }
  if (domid === undefined) {
    throw new ArgumentError(
      "dm-argv",
      "",
      "no -xen-domid",
      "these are no arguments of libxl's; create the guest again",
    );
  }
  const nics = readNics(options, devices);
  const surplusSerials = serials.splice(serialPorts);
  return { options, domid, nics, disks: [...disks], serials, surplusSerials, passthrough, restoring };
}

/** QEMU's options without a value; every other one takes the next argument, whatever that looks like. */
const flags = new Set(
  (
    "S alt-grab ctrl-grab daemonize enable-kvm enable-sync-profile full-screen h help mem-prealloc no-acpi " +
    "no-fd-bootchk no-hpet no-quit no-reboot no-shutdown no-user-config nodefaults nographic only-migratable " +
    "preconfig s semihosting singlestep snapshot usb version win2k-hack xen-attach xen-domid-restrict"
  ).split(" "),
);

function readOptions(argv: readonly Uint8Array[]): DmOption[] {
  if (argv.length > mostArguments) {
    throw new ArgumentError("dm-argv", "", `${argv.length} arguments`, `at most ${mostArguments} are taken`);
  }
  const texts = argv.map(toByteString);
  const named = texts[0] !== undefined && !texts[0].startsWith("-");
  // libxl leaves the program's name out and numbers from 1.
  const first = named ? 0 : 1;
  texts.forEach((text, index) => {
    checkArgument(text, first + index);
  });

  const options: DmOption[] = [];
  for (let index = named ? 1 : 0; index < argv.length; ) {
    const name = optionName(texts[index] ?? "");
    const count = name === "" || flags.has(name) ? 1 : 2;
    options.push({
      name,
      value: count === 2 ? (texts[index + 1] ?? "") : "",
      tokens: argv.slice(index, index + count),
      number: first + index,
    });
    index += count;
  }
  return options;
}

/** Without one dash or two; empty for a bare word, and a dash alone. */
function optionName(text: string): string {
  if (!text.startsWith("-")) return "";
  return text.slice(text.startsWith("--") && text.length > 2 ? 2 : 1);
}

function checkArgument(text: string, number: number): void {
  if (text.length > longestArgument) {
    throw new ArgumentError(
      place(number),
      shown(text),
      "is too long",
      `an argument has at most ${longestArgument} bytes; shorten device_model_args_hvm or the name that it comes from`,
    );
  }
  if (text.includes("\0")) {
    throw new ArgumentError(
      place(number),
      shown(text),
      "holds a NUL byte",
      "no program can be given that; remove it",
    );
  }
}

function readDomid(option: DmOption, target: number): number {
  const { value } = option;
  if (!isDecimal(value, 5)) {
    throw new ArgumentError(
      placeOf(option),
      shown(value),
      "-xen-domid is not the number of a domain",
      rewritten,
    );
  }
  if (Number(value) !== target) {
    throw new ArgumentError(
      placeOf(option),
      shown(value),
      `-xen-domid differs from this stub domain's target ${target}`,
      "the arguments are another guest's; create the guest again",
    );
  }
  return target;
}

/** @param devices the parts of each `-device` */
function readNics(options: readonly DmOption[], devices: readonly (readonly string[])[]): EmulatedNic[] {
  const netdevs = options.filter(({ name }) => name === "netdev");
  return netdevs.flatMap((option) => {
    const { value } = option;
    const netdev = splitOptions(value);
    if (!isTap(netdev)) return [];
    const id = optionValue(netdev, "id") ?? "";
    const device = devices.find((parts) => optionValue(parts, "netdev") === id);
    const devid = /^net(\d{1,5})$/.exec(id)?.[1];
    const mac = device && optionValue(device, "mac")?.toLowerCase();
    if (device === undefined || devid === undefined || mac === undefined || !isMac(mac)) {
      throw new ArgumentError(
        placeOf(option),
        shown(value),
        "a NIC without an id netN, or without a device that names it and a MAC",
        "give the NIC in vif=, not in device_model_args_hvm",
      );
    }
    return [
      {
        netdev: id,
        devid: Number(devid),
        mac,
        model: device[0] ?? "",
        tap: optionValue(netdev, "ifname") ?? "",
      },
    ];
  });
}

export function isTap(netdev: readonly string[]): boolean {
  return netdev[0] === "tap" || optionValue(netdev, "type") === "tap";
}

function isMac(text: string): boolean {
  return /^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/.test(text);
}

function hostDeviceOf(option: DmOption, parts: readonly string[]): PciAddress {
  const host = parsePciAddress(optionValue(parts, "hostaddr") ?? "");
  if (host !== undefined) return host;
  throw new ArgumentError(
    placeOf(option),
    shown(option.value),
    "a passed-through device without hostaddr=, an address like 0000:03:00.0",
    "give the device in pci=, not in device_model_args_hvm",
  );
}

/** Where it stands, for messages: `dm-argv/012`. */
export function placeOf({ number }: DmOption): string {
  return place(number);
}

function place(number: number): string {
  return `dm-argv/${nameOf(number)}`;
}

function nameOf(number: number): string {
  return String(number).padStart(3, "0");
}
