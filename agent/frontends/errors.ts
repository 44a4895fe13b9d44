/**
 * What can be wrong with a PV device of the stub domain:
 *
 *     FrontendFailure
 *     ├── BadNode        xenstore holds something that no device of this kind can have
 *     └── NotConnected   the device did not come up in time, or its backend closed it
 *
 * Every message names the device or node, the value or the states, and what to do about it.
 */
export abstract class FrontendFailure extends Error {}

/** A node with a value that cannot be; `value` is `undefined` where the node is missing. */
export class BadNode extends FrontendFailure {
  override readonly name = "BadNode";
  constructor(
    readonly node: string,
    readonly value: string | undefined,
    /** What belongs there: "a number up to 65535". */
    readonly wanted: string,
    readonly remedy = "the toolstack in dom0 wrote it: see `xenstore-ls` there, and that the guest's configuration is what you mean",
  ) {
    const held = value === undefined ? "is missing" : `holds ${JSON.stringify(value.slice(0, 80))}`;
    super(`xenstore ${node} ${held}, where ${wanted} belongs; ${remedy}`);
  }
}

/** Where a device and its backend stood when it was given up. */
export interface StandStill {
  /** xenbus states as in io/xenbus.h; `undefined` where xenstore has none (any more). */
  readonly frontendState: number | undefined;
  readonly backendState: number | undefined;
  readonly milliseconds: number;
  /** What the kernel or dom0 left in xenstore about it, first to last. */
  readonly notes: readonly string[];
}

export class NotConnected extends FrontendFailure {
  override readonly name = "NotConnected";
  constructor(
    /** The device for people, `disk hda (device/vbd/768)`. */
    readonly device: string,
    readonly backend: string,
    readonly at: StandStill,
    readonly remedy: string,
    stateText: (state: number | undefined) => string,
  ) {
    const notes = at.notes.map((note) => `; ${note}`).join("");
    super(
      `${device} is not connected after ${Math.round(at.milliseconds)} ms: frontend state ${stateText(at.frontendState)}, backend ${backend} state ${stateText(at.backendState)}${notes}; ${remedy}`,
    );
  }
}
