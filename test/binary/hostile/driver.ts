/**
 * A QMP client and a session of the QMP proxy, compiled like the agent, at the mercy of whoever listens at SOCKET.
 *
 *     driver client SOCKET     connects, asks `query-fdsets` again and again
 *     driver proxy SOCKET      joins a connection to SOCKET, which is QEMU, with a toolstack that says nothing
 *
 * Prints {"end": TEXT, "before": KIB, "most": KIB}: why it ended, and how much memory was resident.
 */
import "../../../agent/platform/quickjs/globals.ts";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { silentLogger } from "../../../agent/log/logger.ts";
import { DescriptorStream, SocketStream } from "../../../agent/platform/stream.ts";
import { QmpClient } from "../../../agent/qmp/client.ts";
import { proxySession } from "../../../agent/qmp/proxy.ts";
import { createPlatform, programArguments } from "../screen/platform.ts";

const platform = createPlatform();
const { clock, descriptors, sockets, processes } = platform;
const [, role = "", socket = ""] = programArguments();

/** In KiB. */
function status(name: "VmRSS" | "VmHWM"): number {
  const fd = descriptors.open("/proc/self/status", { access: "read" });
  const bytes = new Uint8Array(4096);
  const text = decodeText(bytes.subarray(0, descriptors.read(fd, bytes) ?? 0));
  descriptors.close(fd);
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]);
}

async function client(): Promise<void> {
  const stream = new SocketStream(platform, sockets.connectUnix(socket), socket);
  const qmp = new QmpClient(stream, { clock, log: silentLogger });
  await qmp.handshake(20_000);
  for (;;) await qmp.execute("query-fdsets", {}, 20_000);
}

async function proxy(): Promise<void> {
  const qemu = new DescriptorStream(descriptors, sockets.connectUnix(socket), "QEMU");
  const [ours, theirs] = sockets.socketPair();
  const toolstack = new DescriptorStream(descriptors, ours, "toolstack");
  const reader = new DescriptorStream(descriptors, theirs, "reader");
  void (async () => {
    while ((await reader.read()) !== null);
  })();
  const summary = await proxySession(toolstack, qemu);
  throw new Error(JSON.stringify(summary));
}

const before = status("VmRSS");
(role === "proxy" ? proxy() : client()).catch((error: unknown) => {
  const result = { end: String(error), before, most: status("VmHWM") };
  descriptors.write(1, encodeText(`${JSON.stringify(result)}\n`));
  processes.exit(0);
});
