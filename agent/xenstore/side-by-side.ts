import type { Platform } from "../platform/port.ts";
import { Connection } from "./connection.ts";
import { Operations } from "./operations.ts";
import type { MessageName, ReplyBody, RequestBody } from "./wire.ts";
import { openXenbus } from "./xenbus-device.ts";

/** More than the few round trips that a boot would otherwise make one by one; other numbers were not compared. */
const mostConnections = 8;

/**
 * Requests that do not depend on each other, carried out side by side. A connection to the kernel's device has
 * one request under way at a time, so that with one the round trips add up; here several share them, opened as
 * they are needed. In which order requests arrive is left open, so this is for reading.
 *
 * A request is rejected with `SystemError` when the device cannot be opened, and as {@link Operations} say.
 */
export class SideBySide extends Operations {
  readonly #connections: Connection[];

  constructor(private readonly platform: Pick<Platform, "descriptors" | "clock">) {
    const first = new Connection(openXenbus(platform), platform.clock);
    super(first, 0);
    this.#connections = [first];
  }

  protected override request<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
  ): Promise<ReplyBody<N>> {
    try {
      return this.#idlest().request(type, body, operand);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #idlest(): Connection {
    const [first = this.connection, ...others] = this.#connections;
    const best = others.reduce((least, each) => (each.inFlight < least.inFlight ? each : least), first);
    if (best.inFlight === 0 || this.#connections.length === mostConnections) return best;
    const added = new Connection(openXenbus(this.platform), this.platform.clock);
    this.#connections.push(added);
    return added;
  }

  /** Idempotent; what is still under way fails. */
  close(): void {
    for (const connection of this.#connections) connection.close();
  }
}
