import { rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { SystemError } from "../../agent/platform/port.ts";
import { encodePacket, messages, PacketDecoder } from "../../agent/xenstore/wire.ts";
import type { FakeXenbus, FakeXenstored } from "./xenstored.ts";

/** A {@link FakeXenstored} behind a unix socket, as dom0's programs reach xenstored: for real processes. */
export class XenstoredSocket {
  readonly #sockets = new Set<Socket>();

  private constructor(
    private readonly server: Server,
    readonly path: string,
  ) {}

  static async listen(daemon: FakeXenstored, path: string): Promise<XenstoredSocket> {
    rmSync(path, { force: true });
    const server = createServer();
    const own = new XenstoredSocket(server, path);
    server.on("connection", (socket) => own.#serve(daemon, socket));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return own;
  }

  close(): void {
    this.server.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #serve(daemon: FakeXenstored, socket: Socket): void {
    this.#sockets.add(socket);
    const bus = daemon.connect(0);
    const decoder = new PacketDecoder();
    let turn: Promise<void> = Promise.resolve();
    socket.on("data", (data: Buffer) => {
      decoder.decode(new Uint8Array(data), (packet) => {
        turn = turn.then(async () => {
          // What the kernel's device reports as write's error is a packet here.
          await bus.write(encodePacket(packet)).catch((error: unknown) => {
            if (!(error instanceof SystemError)) throw error;
            const refusal = { ...packet, type: "error", payload: messages.error.reply.encode(error.code) };
            socket.write(encodePacket(refusal as typeof packet));
          });
        });
        turn.catch(() => socket.destroy());
      });
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#sockets.delete(socket);
      bus.close();
    });
    void pump(bus, socket);
  }
}

async function pump(bus: FakeXenbus, socket: Socket): Promise<void> {
  for (let bytes = await bus.read(); bytes !== null; bytes = await bus.read()) socket.write(bytes);
  socket.destroy();
}
