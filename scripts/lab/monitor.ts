/** Just enough of QMP (docs/interop/qmp-spec.rst) to save the state of the emulated machine. */

import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import { LabError } from "./errors.ts";

export interface Monitor {
  /** Rejects with QEMU's own words. */
  execute(command: string, args?: object): Promise<unknown>;
  close(): void;
}

/** Leaves the negotiation on a QMP socket behind. One command at a time. */
export async function openMonitor(socket: Socket): Promise<Monitor> {
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  const execute = async (command: string, args?: object): Promise<unknown> => {
    socket.write(`${JSON.stringify({ execute: command, ...(args ? { arguments: args } : {}) })}\n`);
    for (;;) {
      const { value, done } = await lines.next();
      if (done) throw new LabError(`QEMU's monitor closed during ${command}`);
      const reply = JSON.parse(value) as { return?: unknown; error?: { desc: string } };
      if (reply.error !== undefined) throw new LabError(`${command}: ${reply.error.desc}`);
      if ("return" in reply) return reply.return;
    }
  };
  await execute("qmp_capabilities");
  return { execute, close: () => socket.destroy() };
}
