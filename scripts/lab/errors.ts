/**
 * What can go wrong with an emulated host, as one tree. A test must tell a fault of the emulator (which says
 * nothing about this project) from a fault of ours, so the two never share a class.
 *
 *     LabError
 *       HostFault            the host as a whole is gone or stuck; `log` is its console
 *         EmulatorFault      Xen or dom0 died in a way that points to QEMU's emulated processor
 *         HostCrash          Xen or dom0 panicked for another reason, or QEMU exited
 *         HostStall          nothing was heard from dom0 for too long
 *       RemoteFailure        a command in dom0 ended with another status than 0
 *       CreateFailure        `xl create` failed
 *       Timeout              a command or an awaited line took too long; the host itself answers
 */

export class LabError extends Error {
  override readonly name: string = "LabError";
}

export class HostFault extends LabError {
  override readonly name: string = "HostFault";

  constructor(
    message: string,
    /** File that holds the console of Xen and dom0. */
    readonly log: string,
  ) {
    super(`${message}\nThe console of Xen and dom0: ${log}`);
  }
}

export class EmulatorFault extends HostFault {
  override readonly name = "EmulatorFault";
}

export class HostCrash extends HostFault {
  override readonly name = "HostCrash";
}

export class HostStall extends HostFault {
  override readonly name = "HostStall";
}

export class RemoteFailure extends LabError {
  override readonly name = "RemoteFailure";

  constructor(
    readonly command: string,
    readonly status: number,
    readonly stdout: string,
    readonly stderr: string,
  ) {
    super(`in dom0: ${command}: exit status ${status}\n${stderr.trim() || stdout.trim()}`);
  }
}

export class CreateFailure extends LabError {
  override readonly name = "CreateFailure";
}

export class Timeout extends LabError {
  override readonly name = "Timeout";
}
