/**
 * A CD that is changed, between the agent's code, compiled as it is in the stub domain, and a real QEMU with the
 * sandbox that it has there: the agent hands over a file, and a second monitor does what libxl does. A file
 * stands for the block device, and no guest runs.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readdirSync, readlinkSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, expect, it } from "vitest";
import { buildAgent } from "../../bundler/agent.ts";
import { buildRoot } from "../../bundler/root.ts";
import { labTools } from "../../scripts/lab/tools.ts";
import { Lines } from "../xen/screen/lines.ts";

const opaque = "stub-devid:5632";
const directory = mkdtempSync(join(tmpdir(), "stubdom-cd-"));
const socket = join(directory, "agent");
const said = new Lines();
let qemu: ChildProcess;
let driver = "";

beforeAll(async () => {
  const entry = fileURLToPath(new URL("descriptor-set/driver.ts", import.meta.url));
  ({ program: driver } = await buildAgent(await buildRoot(), entry));
  const tools = await labTools();
  const [program = "", ...args] = tools.qemu(
    ...["-accel", "tcg", "-S", "-m", "32", "-nodefaults", "-display", "none", "-qmp", "stdio"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    ...["-drive", "if=none,readonly=on,id=ide-5632"],
    ...["-device", "ide-cd,id=ide-5632,drive=ide-5632,bus=ide.1,unit=0"],
    ...[
      "-chardev",
      `socket,id=agent,path=${socket},server=on,wait=off`,
      "-mon",
      "chardev=agent,mode=control",
    ],
  );
  qemu = spawn(program, args, {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, ...tools.environment },
  });
  if (qemu.stdout === null) throw new Error("no pipe");
  createInterface({ input: qemu.stdout }).on("line", (line) => said.add(line));
  await execute("qmp_capabilities");
  expect(existsSync(socket)).toBe(true);
}, 600_000);

afterAll(async () => {
  if (qemu?.exitCode === null) {
    qemu.kill();
    await once(qemu, "exit");
  }
  rmSync(directory, { recursive: true, force: true });
});

/** The toolstack's side. */
async function execute(command: string, args: object = {}): Promise<unknown> {
  qemu.stdin?.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
  const answer = JSON.parse(
    await said.next((line) => /^\{"(return|error)"/.test(line), `answer to ${command}`),
  );
  if (answer.error) throw new Error(`${command}: ${answer.error.desc}`);
  return answer.return;
}

async function handOver(file: string): Promise<number> {
  const { stdout } = await promisify(execFile)(driver, [socket, file, opaque], { timeout: 20_000 });
  return (JSON.parse(stdout) as { set: number }).set;
}

/** How many descriptors QEMU has open of it. */
function held(file: string): number {
  const fds = `/proc/${qemu.pid}/fd`;
  return readdirSync(fds).filter((fd) => {
    try {
      return readlinkSync(join(fds, fd)) === file;
    } catch {
      return false;
    }
  }).length;
}

it("is found by its text, opened, and let go of", async () => {
  for (const [n, size] of [1, 2, 3].entries()) {
    const file = join(directory, `${n}.iso`);
    writeFileSync(file, new Uint8Array(size << 20));
    const set = await handOver(file);
    expect(await execute("query-fdsets")).toEqual([
      { "fdset-id": set, fds: [{ fd: expect.any(Number), opaque }] },
    ]);
    const change = { id: "ide-5632", filename: `/dev/fdset/${set}`, format: "raw" };
    await execute("blockdev-change-medium", change);
    const [{ inserted }] = (await execute("query-block")) as [{ inserted: { image: object } }];
    expect(inserted.image).toMatchObject({ "virtual-size": size << 20 });
    expect(held(file)).toBe(2);
    await execute("eject", { id: "ide-5632" });
    await execute("remove-fd", { "fdset-id": set });
    expect(held(file)).toBe(0);
    expect(await execute("query-fdsets")).toEqual([]);
  }
});

it("an empty drive's is only looked for", async () => {
  const set = await handOver("/dev/null");
  expect(await execute("query-fdsets")).toMatchObject([{ "fdset-id": set, fds: [{ opaque }] }]);
  await execute("remove-fd", { "fdset-id": set });
});
