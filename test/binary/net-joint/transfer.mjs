/**
 * One side of a transfer over TCP in both directions, run inside a namespace:
 *     node transfer.mjs listen ADDRESS | node transfer.mjs connect ADDRESS MEGABYTES
 * `connect` sends random bytes, `listen` sends them back; `connect` prints whether they are the same.
 */
import { createHash, randomBytes } from "node:crypto";
import { connect, createServer } from "node:net";
import { pipeline } from "node:stream/promises";

const [, , role, host, megabytes] = process.argv;
const port = 4242;

if (role === "listen") {
  const server = createServer((socket) => socket.pipe(socket).on("close", () => server.close()));
  server.listen(port, host, () => console.log("listening"));
} else {
  const socket = connect({ port, host });
  const [sent, returned] = [createHash("sha256"), createHash("sha256")];
  const chunk = randomBytes(1 << 20);
  const started = performance.now();
  await Promise.all([
    pipeline(async function* () {
      for (let n = 0; n < Number(megabytes); n++) {
        chunk.writeUInt32LE(n);
        sent.update(chunk);
        yield Buffer.from(chunk);
      }
    }, socket),
    (async () => {
      for await (const part of socket) returned.update(part);
    })(),
  ]);
  const seconds = (performance.now() - started) / 1000;
  console.log(JSON.stringify({ same: sent.digest("hex") === returned.digest("hex"), seconds }));
}
