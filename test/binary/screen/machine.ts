import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { runInRoot } from "../../../bundler/debian.ts";
import { labTools } from "../../../scripts/lab/tools.ts";

/** What one side of a conversation in lines has said, and waiting for more. */
export class Lines {
  readonly seen: string[] = [];
  #taken = 0;
  #changed: () => void = () => {};

  add(line: string): void {
    this.seen.push(line);
    this.#changed();
  }

  /** The next line that `accept` likes, those before it being dropped. */
  async next(accept: (line: string) => boolean, what: string, milliseconds = 30_000): Promise<string> {
    const deadline = Date.now() + milliseconds;
    for (;;) {
      for (let line = this.seen[this.#taken]; line !== undefined; line = this.seen[this.#taken]) {
        this.#taken++;
        if (accept(line)) return line;
      }
      const left = deadline - Date.now();
      if (left <= 0) throw new Error(`no ${what} within ${milliseconds} ms; last: ${this.seen.slice(-3)}`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left);
        this.#changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  }
}

async function socketAt(path: string): Promise<Socket> {
  for (let tries = 0; !existsSync(path); tries++) {
    if (tries > 200) throw new Error(`QEMU did not make ${path}`);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const socket = connect(path);
  await once(socket, "connect");
  return socket;
}

/** A picture as it should be: rows of pixels, 3 bytes each. */
export interface Picture {
  readonly width: number;
  readonly height: number;
  readonly rgb: Uint8Array;
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
    source: string,
    screenArguments: (socket: string) => readonly string[],
    extra: readonly string[] = [],
  ): Promise<Machine> {
    const directory = mkdtempSync(join(tmpdir(), "stubdom-screen-"));
    writeFileSync(join(directory, "guest.S"), readFileSync(source));
    await runInRoot(
      root,
      "cd /build && as --32 -o guest.o guest.S && ld -m elf_i386 -e 0x7c00 -Ttext 0x7c00 --oformat binary -o guest.bin guest.o && truncate -s 1M guest.bin",
      { log: join(directory, "as.log"), binds: { [directory]: "/build" } },
    );
    const tools = await labTools();
    const socket = (name: string) => `unix:${join(directory, name)},server=on,wait=off`;
    const [program = "", ...args] = tools.qemu(
      ...["-accel", "tcg", "-m", "64", "-nodefaults", "-display", "none", "-vga", "std"],
      ...["-drive", `file=${join(directory, "guest.bin")},format=raw`],
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

export function parsePpm(bytes: Uint8Array): Picture {
  const head = Buffer.from(bytes.subarray(0, 32)).toString("latin1");
  const match = /^P6\n(\d+) (\d+)\n255\n/.exec(head);
  if (match === null) throw new Error("no PPM");
  return { width: Number(match[1]), height: Number(match[2]), rgb: bytes.subarray(match[0].length) };
}
