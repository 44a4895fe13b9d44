/** Configurations of HVM guests as `xl` reads them (xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5)). */

export type XlValue = string | number | boolean | readonly string[];

export interface XlDisk {
  /** Name in the guest: `hda`, `sda`, `xvda`, `hdc`. */
  readonly vdev: string;
  /** File or block device of dom0; left out, an empty CD drive. */
  readonly target?: string;
  readonly format?: "raw" | "qcow2";
  readonly cdrom?: boolean;
  readonly readOnly?: boolean;
  /** Who serves it: the kernel or QEMU of dom0. Left out, libxl's choice: QEMU for CDs and for what is not raw. */
  readonly backend?: "phy" | "qdisk";
}

export interface XlNic {
  readonly mac: string;
  /** What QEMU emulates: `e1000`, `rtl8139`. */
  readonly model?: string;
  readonly bridge?: string;
}

export interface XlPci {
  /** On the host: `0000:03:00.0`. */
  readonly address: string;
  /** The guest's QEMU may write all of its configuration space. */
  readonly permissive?: boolean;
}

export interface XlStubdom {
  /** Paths in dom0. */
  readonly kernel: string;
  readonly ramdisk: string;
  readonly cmdline?: string;
  /** MiB. */
  readonly memory?: number;
}

export interface XlGuest {
  readonly name: string;
  /** MiB, 64 by default: booting a guest on an emulated host costs time with every page. */
  readonly memory?: number;
  readonly vcpus?: number;
  readonly disks?: readonly XlDisk[];
  readonly nics?: readonly XlNic[];
  /** Devices of the host; they have to be assignable. */
  readonly pci?: readonly XlPci[];
  /** What the guest's serial ports are connected to. */
  readonly serials?: readonly string[];
  /** Without it QEMU runs in dom0. */
  readonly stubdom?: XlStubdom;
  /** Further lines, as they are; `false` and `true` become 0 and 1. */
  readonly extra?: Readonly<Record<string, XlValue>>;
}

/** `xl`'s quoted strings know backslash escapes; nothing here needs one, so what would need one is refused. */
function quoted(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: exactly those must not get into the file
  if (/["\\\x00-\x1f]/.test(text))
    throw new RangeError(`not for an xl configuration: ${JSON.stringify(text)}`);
  return `"${text}"`;
}

function value(input: XlValue): string {
  if (typeof input === "string") return quoted(input);
  if (typeof input === "number" || typeof input === "boolean") return String(Number(input));
  return `[ ${input.map(quoted).join(", ")} ]`;
}

/** One disk; `target=` comes last because everything after it is the target, commas and all. */
export function diskSpec(disk: XlDisk): string {
  const { vdev, target, format = "raw", cdrom = false, readOnly = cdrom, backend } = disk;
  const parts = [
    `vdev=${vdev}`,
    `access=${readOnly ? "ro" : "rw"}`,
    ...(cdrom ? ["devtype=cdrom"] : []),
    ...(backend === undefined ? [] : [`backendtype=${backend}`]),
  ];
  if (target === undefined) return ["format=empty", ...parts].join(",");
  return [`format=${format}`, ...parts, `target=${target}`].join(",");
}

export function nicSpec({ mac, model, bridge }: XlNic): string {
  return [`mac=${mac}`, ...(model ? [`model=${model}`] : []), ...(bridge ? [`bridge=${bridge}`] : [])].join(
    ",",
  );
}

/** xl-pci-configuration(5); the same text is what `xl pci-attach` takes. */
export function pciSpec({ address, permissive = false }: XlPci): string {
  return permissive ? `${address},permissive=1` : address;
}

/** The configuration's text. */
export function xlConfig(guest: XlGuest): string {
  const { stubdom, serials = ["pty"] } = guest;
  const [serial] = serials;
  const lines: Record<string, XlValue> = {
    name: guest.name,
    type: "hvm",
    memory: guest.memory ?? 64,
    vcpus: guest.vcpus ?? 1,
    device_model_version: "qemu-xen",
    // One port as most people write it; libxl treats a list of one differently.
    ...(serial === undefined ? {} : { serial: serials.length === 1 ? serial : serials }),
    vnc: false,
    disk: (guest.disks ?? []).map(diskSpec),
    vif: (guest.nics ?? []).map(nicSpec),
    // Not an empty list: that is how captured configurations look.
    ...(guest.pci === undefined ? {} : { pci: guest.pci.map(pciSpec) }),
  };
  if (stubdom !== undefined) {
    lines.device_model_stubdomain_override = true;
    lines.stubdomain_kernel = stubdom.kernel;
    lines.stubdomain_ramdisk = stubdom.ramdisk;
    if (stubdom.cmdline !== undefined) lines.stubdomain_cmdline = stubdom.cmdline;
    if (stubdom.memory !== undefined) lines.stubdomain_memory = stubdom.memory;
  }
  return Object.entries({ ...lines, ...guest.extra })
    .map(([key, content]) => `${key} = ${value(content)}\n`)
    .join("");
}
