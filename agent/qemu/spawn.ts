import type { Platform } from "../platform/port.ts";
import { QemuNotStarted } from "./errors.ts";

export interface QemuLaunch {
  readonly argv: readonly Uint8Array[];
  readonly env: readonly string[];
  /** It has few of our capabilities; see `SpawnOptions.confined`. */
  readonly confined: boolean;
  /**
   * Descriptors that QEMU inherits, by the number that it will know each by, from 3 on; they are the
   * child's afterwards and are closed here, whether or not it could be started.
   */
  readonly descriptors: ReadonlyMap<number, number>;
  /** The agent's end of the socket pair whose other end is among `descriptors`; closed where QEMU cannot be started. */
  readonly monitor: number;
}

/** A QEMU that has been started; its descriptors are for {@link QemuSupervisor}. */
export interface QemuProcess {
  readonly pid: number;
  /** When it was executed, by the platform's clock. */
  readonly began: number;
  readonly monitor: number;
  /** The pipe that it writes its standard output and errors to. */
  readonly output: number;
}

/**
 * Starts QEMU in a session of its own. What looks after it is loaded while it starts: the guest waits for QEMU, and for
 * nothing of that.
 *
 * @throws QemuNotStarted
 */
export function spawnQemu(platform: Platform, launch: QemuLaunch): QemuProcess {
  const { descriptors, processes, sockets } = platform;
  const [output, outputEnd] = sockets.pipe();
  const inherited: (number | null)[] = [null, outputEnd, outputEnd];
  for (const [number, fd] of launch.descriptors) inherited[number] = fd;
  try {
    const pid = processes.spawn({
      argv: launch.argv,
      env: launch.env,
      descriptors: Array.from(inherited, (fd) => fd ?? null),
      newSession: true,
      confined: launch.confined,
    });
    return { pid, began: processes.executedAt(), monitor: launch.monitor, output };
  } catch (error) {
    descriptors.close(output);
    descriptors.close(launch.monitor);
    throw new QemuNotStarted(String.fromCharCode(...(launch.argv[0] ?? [])), error);
  } finally {
    for (const fd of new Set([outputEnd, ...launch.descriptors.values()])) descriptors.close(fd);
  }
}
