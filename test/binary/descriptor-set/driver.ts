/**
 * Hands a file to QEMU as the agent does, compiled like the agent.
 *
 *     driver SOCKET FILE OPAQUE       prints {"set": NUMBER}, or {"error": TEXT}
 */
import "../../../agent/platform/quickjs/globals.ts";
import { encodeText } from "../../../agent/bytes/text.ts";
import { addSet } from "../../../agent/hotplug/fdsets.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { SocketStream } from "../../../agent/platform/stream.ts";
import { QmpClient } from "../../../agent/qmp/client.ts";
import { createPlatform, programArguments } from "../screen/platform.ts";

const platform = createPlatform();
const { clock, descriptors, sockets, processes } = platform;

async function main(): Promise<object> {
  const [, socket = "", file = "", opaque = ""] = programArguments();
  const stream = new SocketStream(platform, sockets.connectUnix(socket), socket);
  const qmp = new QmpClient(stream, { clock, log: silentLogger });
  await qmp.handshake(10_000);
  const fd = descriptors.open(file, { access: "read" });
  const set = await addSet(qmp, fd, opaque);
  descriptors.close(fd);
  return { set };
}

function say(result: object): void {
  descriptors.write(1, encodeText(`${JSON.stringify(result)}\n`));
  processes.exit(0);
}

main().then(say, (error: unknown) => say({ error: String(error) }));
