/** How one setting is read, written and explained. */
export interface Field<Value> {
  /** `undefined` when `text` is no such value. */
  parse(text: string): Value | undefined;
  write(value: Value): string;
  readonly fallback: Value;
  /** What may be written, for warnings and for the documentation. */
  readonly allowed: string;
  readonly help: string;
}

function choice<const Value extends string>(
  values: readonly Value[],
  fallback: NoInfer<Value>,
  help: string,
): Field<Value> {
  return {
    parse: (text) => values.find((value) => value === text.toLowerCase()),
    write: (value) => value,
    fallback,
    allowed: values.join(", "),
    help,
  };
}

const yes = ["1", "on", "yes", "true"];
const no = ["0", "off", "no", "false"];

function flag(fallback: boolean, help: string): Field<boolean> {
  return {
    parse: (text) =>
      yes.includes(text.toLowerCase()) ? true : no.includes(text.toLowerCase()) ? false : undefined,
    write: (value) => (value ? "on" : "off"),
    fallback,
    allowed: `${yes.join(", ")} or ${no.join(", ")}`,
    help,
  };
}

/** A duration, written in seconds, in the configuration in milliseconds. */
function seconds(fallback: number, help: string): Field<number> {
  const least = 0.1;
  const most = 600;
  return {
    parse(text) {
      if (!/^\d+(\.\d+)?$/.test(text)) return undefined;
      const value = Number(text);
      return value >= least && value <= most ? Math.round(value * 1000) : undefined;
    },
    write: (value) => String(value / 1000),
    fallback: fallback * 1000,
    allowed: `seconds, ${least} to ${most}`,
    help,
  };
}

/**
 * Every setting there is. This table alone decides what is parsed, what holds by default, and what
 * /etc/stubdom.ini says about it.
 */
export const fields = {
  loglevel: choice(["debug", "info", "warn", "error"], "info", "The least severe lines that are logged."),
  logformat: choice(["human", "json"], "human", "How a line of the log looks on console 0."),
  shell: flag(false, "A root shell for dom0 over a vchan, for debugging only: see the README."),
  lateNotice: seconds(4, "When something is waited for this long, the log and xenstore name it."),
  frontendDeadline: seconds(12, "How long disks, NICs and consoles may take to connect to their backends."),
  pciDeadline: seconds(
    7,
    "How long a passed-through PCI device may take to answer. libxl itself gives up after 10.",
  ),
  qemuDeadline: seconds(12, "How long QEMU may take from its start to its first QMP answer."),
  diskCache: choice(
    ["none", "writeback"],
    "writeback",
    "Whether the stubdom's page cache holds disk data until the guest flushes. none fails the guest's DMA: Linux does no direct I/O to another domain's memory.",
  ),
  diskAio: choice(
    ["io_uring", "native", "threads"],
    "threads",
    "How QEMU hands disk requests to the kernel. native needs disk_cache = none. Only with threads is the guest told of a flush that dom0 cannot carry out.",
  ),
  netJoint: choice(
    ["tc", "bridge", "macvtap"],
    "tc",
    "What joins an emulated NIC to its PV network interface.",
  ),
  clock: choice(
    ["tsc", "kernel"],
    "tsc",
    "Where QEMU's clock comes from between two questions to the kernel, each a system call: the TSC, for 1 ms at most; kernel asks each time.",
  ),
  crashGuest: flag(
    false,
    "Where QEMU breaks or the agent gives up while the guest runs, whether the guest ends with reason crash too, so that on_crash= of its configuration acts. Off, it stands still, as with a QEMU in dom0 that has died.",
  ),
  sandbox: flag(
    true,
    "QEMU's own seccomp filter, and few of root's capabilities for it. Off only to find out whether it is in the way.",
  ),
} satisfies Record<string, Field<never> | Field<string> | Field<boolean> | Field<number>>;

export type FieldName = keyof typeof fields;

type ValueOf<F> = F extends Field<infer Value> ? Value : never;

/** Deadlines and notices are in milliseconds. */
export type Config = { readonly [Name in FieldName]: ValueOf<(typeof fields)[Name]> };
