/**
 * QEMU is not trusted once the guest has broken into it. Whatever it says, process 1 takes no more memory for it than the
 * stub domain can spare: here the agent's own code, compiled like it, and a program in QEMU's place.
 */
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { replyBounds } from "../../agent/qmp/framing.ts";
import { buildAgent } from "../../bundler/agent.ts";
import { buildRoot } from "../../bundler/root.ts";
import { greeting } from "../fakes/qemu.ts";

const directory = mkdtempSync(join(tmpdir(), "stubdom-hostile-"));
let driver = "";

beforeAll(async () => {
  const entry = fileURLToPath(new URL("hostile/driver.ts", import.meta.url));
  ({ program: driver } = await buildAgent(await buildRoot(), entry));
}, 600_000);

afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** One after the other, no faster than they are taken; a connection that ends in the middle is the other side's answer. */
async function pour(to: Socket, pieces: Iterable<string>): Promise<void> {
  for (const piece of pieces) {
    if (to.destroyed) return;
    if (to.write(piece)) continue;
    await new Promise<void>((resolve) => {
      to.once("drain", resolve);
      to.once("close", resolve);
    });
  }
}

interface Outcome {
  readonly end: string;
  readonly before: number;
  readonly most: number;
}

/** What becomes of a driver whose QEMU says this after its greeting. */
async function against(role: "client" | "proxy", pieces: () => Iterable<string>): Promise<Outcome> {
  const path = join(directory, `${role}-${Math.random()}`);
  const server = createServer((socket) => {
    socket.on("error", () => {});
    const attack = () => void pour(socket, pieces()).then(() => socket.end());
    let asked = 0;
    socket.on("data", () => {
      // The first is qmp_capabilities; what is said then answers the second.
      asked++;
      if (asked === 1) socket.write('{"return": {}, "id": 1}\r\n');
      if (asked === 2) attack();
    });
    socket.write(greeting);
    if (role === "proxy") attack();
  });
  server.listen(path);
  await once(server, "listening");
  try {
    const { stdout } = await promisify(execFile)(driver, [role, path], { timeout: 120_000 });
    return JSON.parse(stdout) as Outcome;
  } finally {
    server.close();
  }
}

function* repeated(piece: string, count: number): Generator<string> {
  for (let n = 0; n < count; n++) yield piece;
}

/** As long as a message may be. */
const many = `[${"{},".repeat(replyBounds.bytes / 3 - 100)}{}]`;
const sayings: Record<string, () => Iterable<string>> = {
  "10 MB without a newline": () => repeated("x".repeat(65_536), 160),
  "10 MB of one message": () => ['{"return": "', ...repeated("x".repeat(65_536), 160)],
  "10 MB of one key": () => ['{"', ...repeated("x".repeat(65_536), 160)],
  "a million brackets": () => ['{"return": ', ...repeated("[".repeat(65_536), 16)],
  "an answer of 170,000 objects": () => [`{"return": ${many}, "id": 2}\r\n`],
  "an answer to a question of 170,000 objects": () => [`{"return": {}, "id": ${many}}\r\n`],
  "an event of 170,000 objects": () => [`{"event": "X", "data": ${many}}\r\n`],
  "an event whose name is 170,000 objects": () => [`{"event": ${many}, "data": {}}\r\n`],
  "an error of 170,000 objects": () => [`{"error": ${many}, "id": 2}\r\n`],
  "a hundred thousand events": () =>
    repeated('{"event": "X", "data": {"a": [1, 2, 3]}}\r\n'.repeat(1000), 100),
  "a hundred thousand answers to nothing": () => repeated('{"return": {}, "id": 99}\r\n'.repeat(1000), 100),
  "a thousand greetings": () => repeated(greeting, 1000),
  "an answer that is no JSON": () => ['{"return": tru, "id": 2}\r\n'],
  "true answers, and then none": () => [`{"return": [], "id": 2}\r\n`],
};

// A message that is not complete is kept, up to its bound; the proxy keeps none.
it.each([
  ["client", 1200],
  ["proxy", 300],
] as const)(
  "the %s takes less than %i KiB for whatever QEMU says",
  async (role, most) => {
    for (const [name, pieces] of Object.entries(sayings)) {
      const outcome = await against(role, pieces);
      // And nothing that is asked waits for ever.
      expect(outcome.most - outcome.before, `${name}: ${outcome.end}`).toBeLessThan(most);
    }
  },
  120_000,
);
