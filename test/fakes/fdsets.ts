import type { Qmp } from "../../agent/hotplug/fdsets.ts";
import { QmpCommandError } from "../../agent/qmp/errors.ts";
import type { JsonObject, JsonValue } from "../../agent/qmp/json.ts";

/** QEMU's descriptor sets as QEMU 10 keeps them (monitor/fds.c): a new one gets the first free number. */
export class FakeFdsets implements Qmp {
  /** Number of the set -> opaque text and the agent's descriptor that it was made of. */
  readonly sets = new Map<number, { readonly opaque: string; readonly fd: number }>();
  /** Commands in order, as `name {arguments}`. */
  readonly journal: string[] = [];
  /** Refuses the next command of this name. */
  refusal: { readonly command: string; readonly error: Error } | undefined;

  execute(command: string, args: JsonObject = {}): Promise<JsonValue> {
    return this.#run(command, args);
  }

  executeWith(descriptor: number, command: string, args: JsonObject = {}): Promise<JsonValue> {
    return this.#run(command, args, descriptor);
  }

  async #run(command: string, args: JsonObject, descriptor?: number): Promise<JsonValue> {
    this.journal.push(`${command} ${JSON.stringify(args)}`);
    // An answer takes a while.
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
    if (this.refusal?.command === command) {
      const { error } = this.refusal;
      this.refusal = undefined;
      throw error;
    }
    switch (command) {
      case "query-fdsets":
        return [...this.sets].map(([id, { opaque, fd }]) => ({
          "fdset-id": id,
          fds: [{ fd: fd + 20, opaque }],
        }));
      case "add-fd": {
        if (descriptor === undefined) throw notSupplied();
        let id = 0;
        while (this.sets.has(id)) id++;
        this.sets.set(id, { opaque: String(args.opaque), fd: descriptor });
        return { "fdset-id": id, fd: descriptor + 20 };
      }
      case "remove-fd": {
        const id = Number(args["fdset-id"]);
        if (!this.sets.delete(id)) {
          throw new QmpCommandError(
            command,
            "GenericError",
            `File descriptor named 'fdset-id:${id}' not found`,
          );
        }
        return {};
      }
      default:
        return {};
    }
  }
}

function notSupplied(): QmpCommandError {
  return new QmpCommandError("add-fd", "GenericError", "No file descriptor supplied via SCM_RIGHTS");
}
