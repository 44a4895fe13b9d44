import type { Config } from "../config/fields.ts";
import { type DmArguments, type DmOption, isTap, placeOf, restorePlaceholder } from "./dm-argv.ts";
import { ArgumentError } from "./errors.ts";
import { isNic, nicsWithRom, unavailable, usbDevices } from "./models.ts";
import { fromByteString, optionKey, optionValue, shown, splitOptions } from "./text.ts";

/** What the agent has prepared for QEMU. Descriptors are the child's. */
export interface LaunchFacts {
  /** Path of the program, which becomes `argv[0]`. */
  readonly program: string;
  /** The connected socket of the agent's own QMP connection. */
  readonly agentMonitor: number;
  /** The listening socket to which each session of the toolstack connects. */
  readonly toolstackMonitor: number;
  /** For each netdev id the descriptor of its TAP device. */
  readonly taps: ReadonlyMap<string, number>;
  /** Where QEMU's state comes from, as `-incoming` takes it; needed when restoring. */
  readonly incoming?: string;
  /** What has QEMU serve its screen to the agent; given when dom0 shows one (vnc=1). */
  readonly screen?: readonly string[];
  readonly config: Pick<Config, "diskCache" | "diskAio" | "sandbox">;
}

export interface QemuCommandLine {
  readonly argv: readonly Uint8Array[];
  /** What of libxl's arguments was left out although someone asked for it, one line each, for the log. */
  readonly notes: readonly string[];
}

/*
 * What becomes of libxl's arguments (tools/libs/light/libxl_dm.c of Xen 4.17 to 4.20). All that is not named
 * here, device_model_args_hvm of the guest's configuration included, is left as it is, bytes and order.
 *
 * replaced
 *   -netdev type=tap,...      ifname, br, script and downscript by fd=: the agent opened the TAP device and
 *                             joins it to the right vif; QEMU may neither open it nor run a script
 *   -drive file=/dev/...      cache= by cache.direct= and aio= of the configuration; discard=unmap unless
 *                             read-only, so that what the backend offers reaches the guest
 *   -serial /dev/hvc...       pipe: before it: as a terminal QEMU would ask it for modem lines, which a console
 *                             has not, and the guest would wait for a CTS that never comes; left out from the fifth on, which
 *                             QEMU would open and not emulate
 *   -incoming $STUBDOM_...    the placeholder by where the agent has the state
 *   -device e1000, rtl8139    romfile= added, no boot ROM, from the fifth on: libxl leaves QEMU 1088 KiB for ROMs, of
 *                             which the graphics card has 64 and each NIC 256, and a fifth ends QEMU
 *   -no-acpi                  -machine acpi=off: QEMU 9 dropped the option, libxl 4.20 still gives it
 * left out
 *   -chardev id=libxl-channel channel=: a PV console whose backend is a QEMU of dom0's for the guest itself, and with a
 *                             stub domain libxl starts none
 *   -chroot, -runas, -run-with chroot= and user=
 *                             dm_restrict=1: directories and users of dom0
 *   -xen-domid-restrict       QEMU would not write its state to xenstore, for which libxl waits, and the
 *                             hypervisor restricts a stub domain already
 *   -daemonize                PID 1 must see QEMU end
 *   -k                        with a screen: the agent sends keys, not what is written on them, and a layout
 *                             makes QEMU ignore those; dom0's VNC server, which has got it too, needs it
 * refused
 *   -device                   what QEMU does not have here, or cannot have so: see models.ts
 *   -usbdevice                but tablet, mouse and keyboard
 *   -chardev spicevmc         SPICE does not reach into a stub domain
 *   -machine igd-passthru=on  gfx_passthru=: QEMU would look at the host's own bridge
 *   -kernel, -initrd          files of dom0, out of reach
 *   -xen-attach               not the QEMU of an HVM guest
 * added
 *   -sandbox                  first, unless device_model_args_hvm has one
 *   -nodefaults -no-user-config   when missing
 *   -audio none               unless some -audio or -audiodev: QEMU 10 starts no sound device without
 *   -vnc                      when dom0 shows the screen, of which the agent is the only viewer; libxl's
 *                             -display none stays
 *   -chardev, -mon            two QMP monitors, on descriptors: nothing to race for in the file system
 */

/** The new arguments in an option's place; `null` for the old ones. */
type Rule = (option: DmOption, build: Build) => readonly string[] | null;

interface Build {
  readonly facts: LaunchFacts;
  readonly dm: DmArguments;
  readonly notes: string[];
  /** Emulated NICs so far. */
  nics: number;
}

const rules: Readonly<Record<string, Rule>> = {
  netdev: tapByDescriptor,
  drive: hostDevice,
  serial: ({ value }, { dm }) => {
    if (dm.surplusSerials.includes(value)) return [];
    return value.startsWith("/dev/hvc") ? ["-serial", `pipe:${value}`] : null;
  },
  incoming: incomingState,
  "no-acpi": () => ["-machine", "acpi=off"],
  chardev: (option, build) => {
    const parts = splitOptions(option.value);
    if (parts[0] === "spicevmc") {
      throw refusal(
        option,
        "SPICE does not reach into a stub domain",
        "take usbredirection= and spice= out of the guest's configuration",
      );
    }
    return optionValue(parts, "id")?.startsWith("libxl-channel")
      ? leftOut(
          "a guest with a stub domain has no channel, since libxl starts no QEMU in dom0 for it; take channel= out of its configuration",
        )(option, build)
      : null;
  },
  device: (option, build) => {
    const parts = splitOptions(option.value);
    const why = unavailable(parts);
    if (why !== undefined) throw refusal(option, why.problem, why.remedy);
    return isNic(parts) ? nic(option, parts, build) : null;
  },
  machine: (option) => {
    if (!splitOptions(option.value).includes("igd-passthru=on")) return null;
    throw refusal(
      option,
      "the host bridge, which gfx_passthru= has QEMU look at, does not reach into a stub domain",
      "take gfx_passthru= out of the guest's configuration; pci= alone passes a graphics card as a second one",
    );
  },
  usbdevice: (option) => {
    if (usbDevices.includes(option.value)) return null;
    throw refusal(
      option,
      "QEMU has no such USB device here",
      `usbdevice= takes ${usbDevices.join(", ")}; a real device reaches a guest with its USB controller, by pci=`,
    );
  },
  chroot: leftOut("a directory of dom0"),
  runas: leftOut("a user of dom0"),
  "run-with": (option, build) =>
    splitOptions(option.value).every((part) => ["chroot", "user"].includes(optionKey(part)))
      ? leftOut("a directory or user of dom0")(option, build)
      : null,
  "xen-domid-restrict": leftOut("the hypervisor restricts a stub domain to its target"),
  daemonize: leftOut("QEMU runs under the stub domain's PID 1"),
  k: (option, build) =>
    build.facts.screen ? leftOut("dom0's VNC server has the layout")(option, build) : null,
  kernel: refused("direct kernel boot reads a file of dom0, which a stub domain cannot", "boot from a disk"),
  initrd: refused("direct kernel boot reads a file of dom0, which a stub domain cannot", "boot from a disk"),
  "xen-attach": refused("is for the QEMU of a PV guest", 'a stub domain serves guests of type="hvm" only'),
};

/**
 * QEMU's command line out of libxl's, and what the agent prepared. Pure.
 *
 * @throws ArgumentError when an option cannot work in a stub domain, or a fact that it needs is missing
 */
export function qemuCommandLine(dm: DmArguments, facts: LaunchFacts): QemuCommandLine {
  const build: Build = { facts, dm, notes: [], nics: 0 };
  const names = new Set(dm.options.map(({ name }) => name));
  const has = (...any: string[]) => any.some((name) => names.has(name));
  const before = [
    facts.program,
    ...(facts.config.sandbox && !has("sandbox") ? ["-sandbox", sandbox] : []),
    ...(has("nodefaults") ? [] : ["-nodefaults"]),
    ...(has("no-user-config") ? [] : ["-no-user-config"]),
  ];
  const given = dm.options.flatMap((option) => {
    const rule = Object.hasOwn(rules, option.name) ? rules[option.name] : undefined;
    return rule?.(option, build)?.map(fromByteString) ?? option.tokens;
  });
  const after = [
    ...(has("audio", "audiodev") ? [] : ["-audio", "none"]),
    ...(facts.screen ?? []),
    ...monitor("stubdom-agent", `fd=${facts.agentMonitor}`),
    ...monitor("stubdom-toolstack", `fd=${facts.toolstackMonitor},server=on,wait=off`),
  ];
  return {
    argv: [...before.map(fromByteString), ...given, ...after.map(fromByteString)],
    notes: build.notes,
  };
}

/** The strictest that QEMU's seccomp filter has: no new programs, privileges, priorities, or old calls. */
const sandbox = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

function monitor(id: string, socket: string): string[] {
  return ["-chardev", `socket,id=${id},${socket}`, "-mon", `chardev=${id},mode=control`];
}

function tapByDescriptor(option: DmOption, { facts }: Build): readonly string[] | null {
  const parts = splitOptions(option.value);
  if (!isTap(parts)) return null;
  const id = optionValue(parts, "id") ?? "";
  const descriptor = facts.taps.get(id);
  if (descriptor === undefined) {
    throw refusal(option, `no TAP device for ${id}`, "this is a fault of the agent: please report it");
  }
  return ["-netdev", [...without(parts, tapByName), `fd=${descriptor}`].join(",")];
}

/** Options that say how QEMU is to open a TAP device itself; QEMU takes none of them beside fd=. */
const tapByName = ["ifname", "br", "script", "downscript", "helper", "vnet_hdr", "queues", "fds"];

function nic(option: DmOption, parts: readonly string[], build: Build): readonly string[] | null {
  build.nics++;
  if (build.nics <= nicsWithRom || optionValue(parts, "romfile") !== undefined) return null;
  build.notes.push(
    `${placeOf(option)}: -device ${shown(option.value)} has no boot ROM: QEMU has memory for those of ${nicsWithRom} NICs, and nothing boots from the network by this one`,
  );
  return ["-device", `${option.value},romfile=`];
}

function hostDevice(option: DmOption, { facts }: Build): readonly string[] | null {
  const parts = splitOptions(option.value);
  const file = optionValue(parts, "file");
  if (optionValue(parts, "format") !== "host_device" || file === undefined) return null;
  const { diskCache, diskAio } = facts.config;
  const direct = diskCache === "none";
  const discards = optionValue(parts, "readonly") !== "on" && optionValue(parts, "discard") === undefined;
  return [
    "-drive",
    [
      ...without(parts, ["cache", "cache.direct", "aio"]),
      `cache.direct=${direct ? "on" : "off"}`,
      // Linux' own asynchronous I/O is asynchronous only past the page cache; QEMU refuses it otherwise.
      `aio=${diskAio === "native" && !direct ? "threads" : diskAio}`,
      ...(discards ? ["discard=unmap"] : []),
    ].join(","),
  ];
}

function incomingState(option: DmOption, { facts }: Build): readonly string[] | null {
  if (option.value !== restorePlaceholder) return null;
  if (facts.incoming === undefined) {
    throw refusal(option, "there is no saved state", "this is a fault of the agent: please report it");
  }
  return ["-incoming", facts.incoming];
}

function without(parts: readonly string[], keys: readonly string[]): string[] {
  return parts.filter((part) => !keys.includes(optionKey(part)));
}

function leftOut(why: string): Rule {
  return (option, { notes }) => {
    notes.push(`${placeOf(option)}: -${option.name} ${shown(option.value)} left out: ${why}`);
    return [];
  };
}

function refused(problem: string, remedy: string): Rule {
  return (option) => {
    throw refusal(option, problem, remedy);
  };
}

function refusal(option: DmOption, problem: string, remedy: string): ArgumentError {
  const value = option.value === "" ? "" : ` ${shown(option.value)}`;
  return new ArgumentError(placeOf(option), `-${option.name}${value}`, problem, remedy);
}
