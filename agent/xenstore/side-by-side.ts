import type { Platform } from "../platform/port.ts";
import { type Answered, Connection } from "./connection.ts";
import { Operations } from "./operations.ts";
import type { MessageName, RequestBody } from "./wire.ts";
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
  #turn = 0;

  constructor(private readonly platform: Pick<Platform, "descriptors" | "clock">) {
    const first = new Connection(openXenbus(platform), platform.clock);
    super(first, 0);
    this.#connections = [first];
  }

  protected override send<N extends MessageName>(
    type: N,
    body: RequestBody<N>,
    operand: string,
    answered: Answered,
  ): void {
    this.#inTurn().request(type, body, operand, answered);
  }

  /** Requests are much alike, so that each connection gets as many as any other. */
  #inTurn(): Connection {
    const turn = this.#turn % mostConnections;
    if (turn === this.#connections.length)
      this.#connections.push(new Connection(openXenbus(this.platform), this.platform.clock));
    this.#turn++;
    return this.#connections[turn] ?? this.connection;
  }

  /** Idempotent; what is still under way fails. */
  close(): void {
    for (const connection of this.#connections) connection.close();
  }
}
