/**
 * How QEMU is started, from its networks to its process. Nothing of it is needed before its devices have
 * connected: it is loaded while they do.
 */
import type { Config } from "../config/fields.ts";
import { type Joint, NetworkJoiner } from "../frontends/net/joint.ts";
import type { Log } from "../log/log.ts";
import type { Platform } from "../platform/port.ts";
import { qemuCommandLine } from "../qemu/arguments.ts";
import type { DmArguments } from "../qemu/dm-argv.ts";
import { type QemuProcess, spawnQemu } from "../qemu/spawn.ts";
import type { Incoming } from "../savestate/restore.ts";
import { screenArguments } from "../screen/arguments.ts";

const program = "/usr/bin/qemu-system-i386";
/** Answers QEMU's questions for the time, most of them without a system call: bundler/clock/clock.c. */
const clockLibrary = "/lib/stubdom-clock.so";
/** Where QEMU listens for the toolstack's sessions. */
export const toolstackSocket = "/run/qmp-toolstack.sock";
/** QEMU's descriptors, by the number that it knows each by. */
const agentMonitor = 3;
const toolstackMonitor = 4;
const firstTap = 5;

export interface LaunchContext {
  readonly platform: Platform;
  readonly log: Log;
  readonly dm: DmArguments;
  readonly config: Config;
}

/** Prepares a way to the network for each of QEMU's NICs; gives how to join them, once they are connected. */
export function prepareNetworks({
  platform,
  log,
  dm,
  config,
}: LaunchContext): () => Promise<readonly Joint[]> {
  if (dm.nics.length === 0) return async () => [];
  const joiner = new NetworkJoiner(platform, config.netJoint, log);
  joiner.prepare(dm.nics);
  return () => joiner.joinAll(dm.nics);
}

/** QEMU's monitors, its TAP devices and its process; what it inherits is closed here. */
export function launchQemu(
  { platform, log, dm, config }: LaunchContext,
  given: {
    /** In the order of the NICs. */
    readonly joints: readonly Joint[];
    readonly screen: boolean;
    readonly incoming: Incoming | undefined;
  },
): { readonly child: QemuProcess; readonly argv: readonly Uint8Array[] } {
  const { joints, incoming } = given;
  const [ours, theirs] = platform.sockets.socketPair();
  const listener = platform.sockets.listenUnix(toolstackSocket);
  const descriptors = new Map([
    [agentMonitor, theirs],
    [toolstackMonitor, listener],
    ...joints.map(({ descriptor }, i) => [firstTap + i, descriptor] as const),
  ]);
  const stateNumber = firstTap + joints.length;
  if (incoming !== undefined) descriptors.set(stateNumber, incoming.descriptor);
  const { argv, notes } = qemuCommandLine(dm, {
    program,
    agentMonitor,
    toolstackMonitor,
    taps: new Map(dm.nics.map(({ netdev }, i) => [netdev, firstTap + i])),
    ...(given.screen && { screen: screenArguments }),
    config,
    ...(incoming !== undefined && { incoming: `fd:${stateNumber}` }),
  });
  for (const note of notes) log.info({}, note);
  for (const joint of joints) joint.handedOver();
  platform.vchans.holdXenstore();
  const child = spawnQemu(platform, {
    argv,
    confined: config.sandbox,
    env: config.clock === "tsc" ? [`LD_PRELOAD=${clockLibrary}`] : [],
    descriptors,
    monitor: ours,
  });
  return { child, argv };
}
