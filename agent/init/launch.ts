/**
 * How QEMU is started, from its networks to its process. Nothing of it is needed before its devices have
 * connected: it is loaded while they do.
 */
import type { Config } from "../config/fields.ts";
import { type Joint, NetworkJoiner } from "../frontends/net/joint.ts";
import { NetlinkFormatError } from "../frontends/net/netlink.ts";
import { RouteError } from "../frontends/net/route.ts";
import type { Log } from "../log/log.ts";
import { type Platform, SystemError } from "../platform/port.ts";
import { qemuCommandLine } from "../qemu/arguments.ts";
import type { DmArguments } from "../qemu/dm-argv.ts";
import { type QemuProcess, spawnQemu } from "../qemu/spawn.ts";
import type { Incoming } from "../savestate/restore.ts";
import { screenArguments } from "../screen/arguments.ts";
import { BootError } from "./errors.ts";

const program = "/usr/bin/qemu-system-i386";
/** Answers QEMU's questions for the time, most of them without a system call: bundler/clock/clock.c. */
const clockLibrary = "/lib/stubdom-clock.so";
/** Has a flush fail that Linux' blkfront takes for done although dom0 could not do it: bundler/flush/flush.c. */
const flushLibrary = "/lib/stubdom-flush.so";
/** Where QEMU listens for the toolstack's sessions. */
export const toolstackSocket = "/run/qmp-toolstack.sock";
/** QEMU's descriptors, by the number that it knows each by. */
const agentMonitor = 3;
const toolstackMonitor = 4;
const kernelLog = 5;
const firstTap = 6;

export interface LaunchContext {
  readonly platform: Platform;
  readonly log: Log;
  readonly dm: DmArguments;
  readonly config: Config;
  /** Whether dom0 shows the guest's screen. */
  readonly screen: boolean;
}

/** QEMU as it is going to be started. */
export interface Launch {
  /** To be called once the NICs are connected. */
  joinNetworks(): Promise<readonly Joint[]>;
  /** QEMU's process; what it inherits is closed here. The joints are in the order of the NICs. */
  launchQemu(joints: readonly Joint[], incoming: Incoming | undefined): QemuProcess;
  readonly argv: readonly Uint8Array[];
}

/**
 * QEMU's arguments, and a way to the network for each of its NICs: all that needs no device.
 *
 * @throws ArgumentError when libxl wants what no stub domain has
 */
export function prepareLaunch({ platform, log, dm, config, screen }: LaunchContext): Launch {
  const stateNumber = firstTap + dm.nics.length;
  const { argv, notes } = qemuCommandLine(dm, {
    program,
    agentMonitor,
    toolstackMonitor,
    taps: new Map(dm.nics.map(({ netdev }, i) => [netdev, firstTap + i])),
    ...(screen && { screen: screenArguments }),
    config,
    ...(dm.restoring && { incoming: `fd:${stateNumber}` }),
  });
  for (const note of notes) log.info({}, note);
  const joiner = dm.nics.length > 0 ? new NetworkJoiner(platform, config.netJoint, log) : undefined;
  joiner?.prepare(dm.nics);
  return {
    argv,
    async joinNetworks() {
      try {
        return (await joiner?.joinAll(dm.nics)) ?? [];
      } catch (error) {
        if (!(error instanceof RouteError || error instanceof NetlinkFormatError)) throw error;
        throw new BootError(
          `emulated NICs are not joined to the network: ${error.message}`,
          "boot the image's own kernel, stubdom-linux-kernel, and see in dom0 whether the backend of each vif is up",
        );
      }
    },
    launchQemu(joints, incoming) {
      const [ours, theirs] = platform.sockets.socketPair();
      const listener = platform.sockets.listenUnix(toolstackSocket);
      const descriptors = new Map([
        [agentMonitor, theirs],
        [toolstackMonitor, listener],
        [kernelLog, openKernelLog(platform)],
        ...joints.map(({ descriptor }, i) => [firstTap + i, descriptor] as const),
      ]);
      if (incoming !== undefined) descriptors.set(stateNumber, incoming.descriptor);
      for (const joint of joints) joint.handedOver();
      platform.vchans.holdDevices();
      return spawnQemu(platform, {
        argv,
        confined: config.sandbox,
        env: [
          `LD_PRELOAD=${[flushLibrary, ...(config.clock === "tsc" ? [clockLibrary] : [])].join(":")}`,
          `STUBDOM_KERNEL_LOG=${kernelLog}`,
        ],
        descriptors,
        monitor: ours,
      });
    },
  };
}

function openKernelLog({ descriptors }: Platform): number {
  try {
    return descriptors.open("/dev/kmsg", { access: "read", nonBlocking: true });
  } catch (error) {
    if (!(error instanceof SystemError)) throw error;
    throw new BootError(
      `no flush that fails could be told from one that does not: ${error.message}`,
      "boot the image's own kernel, stubdom-linux-kernel",
    );
  }
}
