import { encodeText } from "../../agent/bytes/text.ts";
import type { ByteStream } from "../../agent/platform/stream.ts";
import { commandBounds, type Message, MessageReader } from "../../agent/qmp/framing.ts";
import type { JsonValue } from "../../agent/qmp/json.ts";

export const greeting =
  '{"QMP": {"version": {"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": "fake"}, "capabilities": ["oob"]}}\r\n';

export interface FakeQemuOptions {
  /** Answers a command; throws to refuse it. Default: `{}` for everything. */
  readonly execute?: (command: string, args: JsonValue) => JsonValue | Promise<JsonValue>;
  /** Hold the greeting back, as a QEMU that hangs does. */
  readonly silent?: boolean;
}

/** QEMU's side of one monitor connection, as QEMU 10 behaves: commands are answered one by one, in order. */
export class FakeQemuMonitor {
  /** Names of the commands received, in order. */
  readonly received: string[] = [];
  /** Resolves when the other side has closed. */
  readonly done: Promise<void>;
  #negotiated = false;

  constructor(
    private readonly stream: ByteStream,
    private readonly options: FakeQemuOptions = {},
  ) {
    this.done = this.#serve();
  }

  event(name: string, data: JsonValue = {}): Promise<void> {
    return this.send({ timestamp: { seconds: 1, microseconds: 2 }, event: name, data });
  }

  send(message: JsonValue): Promise<void> {
    return this.sendText(`${JSON.stringify(message)}\r\n`);
  }

  sendText(text: string): Promise<void> {
    return this.stream.write(encodeText(text));
  }

  async #serve(): Promise<void> {
    try {
      if (!this.options.silent) await this.sendText(greeting);
      const reader = new MessageReader(commandBounds);
      for (let chunk = await this.stream.read(); chunk !== null; chunk = await this.stream.read()) {
        for (const piece of reader.push(chunk))
          if (piece.kind === "message") await this.#answer(piece.message);
      }
    } catch {
      // The other side went away in the middle; so does this one.
    }
    this.stream.close();
  }

  async #answer(message: Message): Promise<void> {
    const id = message.lenientValue("id");
    const echo = id === undefined ? {} : { id };
    const command = String(message.lenientValue("execute"));
    this.received.push(command);
    try {
      const result = await this.#run(command, message.lenientValue("arguments") ?? {});
      await this.send({ return: result, ...echo });
    } catch (error) {
      const [errorClass, desc] =
        error instanceof Refusal ? [error.errorClass, error.message] : ["GenericError", `${error}`];
      await this.send({ error: { class: errorClass, desc }, ...echo });
    }
  }

  #run(command: string, args: JsonValue): JsonValue | Promise<JsonValue> {
    if (command === "qmp_capabilities") {
      this.#negotiated = true;
      return {};
    }
    if (!this.#negotiated) throw new Refusal("CommandNotFound", "Expecting capabilities negotiation");
    return this.options.execute?.(command, args) ?? {};
  }
}

/** Thrown by an `execute` to choose the class of the error. */
export class Refusal extends Error {
  constructor(
    readonly errorClass: string,
    description: string,
  ) {
    super(description);
  }
}
