import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { screenGuest } from "../../../scripts/bench/screen-guest.ts";
import { labTools } from "../../../scripts/lab/tools.ts";
import { Lines } from "../../xen/screen/lines.ts";
import { type Picture, parsePpm } from "../../xen/screen/picture.ts";

async function socketAt(path: string): Promise<Socket> {
  for (let tries = 0; !existsSync(path); tries++) {
    if (tries > 200) throw new Error(`QEMU did not make ${path}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const socket = connect(path);
  await once(socket, "connect");
  return socket;
}

/** A PC under QEMU's own emulation that runs test/xen/screen/guest.S. */
export class Machine {
  readonly serial = new Lines();
  readonly qmp = new Lines();
  readonly screenSocket: string;

  private constructor(
    readonly directory: string,
    private readonly child: ChildProcess,
    private readonly serialSocket: Socket,
    private readonly qmpSocket: Socket,
  ) {
    this.screenSocket = join(directory, "screen");
    createInterface({ input: serialSocket }).on("line", (line) => this.serial.add(line));
    createInterface({ input: qmpSocket }).on("line", (line) => this.qmp.add(line));
  }

  /** @param root where assembler and linker are; @param screenArguments what serves the screen on `socket` */
  static async start(
    root: string,
    screenArguments: (socket: string) => readonly string[],
    extra: readonly string[] = [],
  ): Promise<Machine> {
    const directory = mkdtempSync(join(tmpdir(), "stubdom-screen-"));
    const disk = await screenGuest(root, directory);
    const tools = await labTools();
    const socket = (name: string) => `unix:${join(directory, name)},server=on,wait=off`;
    const [program = "", ...args] = tools.qemu(
      ...["-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-vga", "std"],
      ...["-drive", `file=${disk},format=raw`],
      ...["-serial", socket("serial"), "-qmp", socket("qmp"), ...extra],
      ...screenArguments(join(directory, "screen")),
    );
    const child = spawn(program, args, {
      stdio: ["ignore", "inherit", "inherit"],
      env: { ...process.env, ...tools.environment },
    });
    const sockets = await Promise.all(["serial", "qmp"].map((name) => socketAt(join(directory, name))));
    const machine = new Machine(directory, child, sockets[0] as Socket, sockets[1] as Socket);
    await machine.execute("qmp_capabilities");
    return machine;
  }

  async execute(command: string, args: object = {}): Promise<unknown> {
    this.qmpSocket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    const answer = JSON.parse(
      await this.qmp.next((line) => /^\{"(return|error)"/.test(line), `answer to ${command}`),
    );
    if (answer.error) throw new Error(`${command}: ${answer.error.desc}`);
    return answer.return;
  }

  /** One letter to the guest; see guest.S. */
  tell(letter: string): void {
    this.serialSocket.write(letter);
  }

  async draw(letter: string): Promise<void> {
    this.tell(letter);
    const answer = await this.serial.next((line) => /drawn|failed/.test(line), "picture");
    if (answer.includes("failed")) throw new Error(`the guest has no mode ${letter}`);
  }

  /** QMP's screendump. */
  async picture(): Promise<Picture> {
    const filename = join(this.directory, "dump.ppm");
    await this.execute("screendump", { filename });
    return parsePpm(readFileSync(filename));
  }

  async end(): Promise<void> {
    this.qmpSocket.destroy();
    this.serialSocket.destroy();
    if (this.child.exitCode === null) {
      this.child.kill();
      await once(this.child, "exit");
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}
