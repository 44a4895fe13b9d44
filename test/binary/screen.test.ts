import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, ftruncateSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { screenArguments, screenSocket } from "../../agent/screen/arguments.ts";
import { qemuKey } from "../../agent/screen/keys.ts";
import { buildAgent } from "../../bundler/agent.ts";
import { buildRoot } from "../../bundler/root.ts";
import { Lines } from "../xen/screen/lines.ts";
import { difference, type Picture } from "../xen/screen/picture.ts";
import { Machine } from "./screen/machine.ts";

/**
 * The screen's client, compiled as the agent is, against a real QEMU whose guest draws noise: what arrives in
 * the framebuffer (a file here) must be QMP's screendump, pixel for pixel.
 */
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const largest = { width: 1024, height: 768 };

let machine: Machine;
let program = "";

beforeAll(async () => {
  const root = await buildRoot();
  ({ program } = await buildAgent(root, here("screen/driver.ts")));
  machine = await Machine.start(root.path, (socket) =>
    screenArguments.map((argument) => argument.replace(screenSocket, socket)),
  );
  await machine.serial.next((line) => line.includes("ready"), "guest");
}, 600_000);

afterAll(() => machine?.end());

/** One client with its framebuffer. */
class Client {
  readonly #lines = new Lines();
  readonly #child: ChildProcess;
  readonly #fd: number;

  constructor(name: string, options: object = {}) {
    const file = join(machine.directory, name);
    this.#fd = openSync(file, "w+");
    ftruncateSync(this.#fd, 4 * largest.width * largest.height);
    const task = { socket: machine.screenSocket, file, largest, ...options };
    this.#child = spawn(program, [JSON.stringify(task)], { stdio: ["pipe", "pipe", "inherit"] });
    if (this.#child.stdout === null) throw new Error("no pipe");
    createInterface({ input: this.#child.stdout }).on("line", (line) => this.#lines.add(line));
  }

  tell(command: object): void {
    this.#child.stdin?.write(`${JSON.stringify(command)}\n`);
  }

  async event(name: string): Promise<Record<string, unknown>> {
    const wanted = new RegExp(`"event":"(${name}|failed)"`);
    const event = JSON.parse(await this.#lines.next((line) => wanted.test(line), name));
    if (event.event !== name) throw new Error(`the client failed: ${event.error}`);
    return event;
  }

  async counters(): Promise<Record<string, number>> {
    this.tell({ do: "counters" });
    return (await this.event("counters")) as Record<string, number>;
  }

  /** The framebuffer's pixels of a view, 3 bytes each. */
  pixels(width: number, height: number, left = 0, top = 0): Uint8Array {
    const row = Buffer.alloc(4 * width);
    const rgb = new Uint8Array(3 * width * height);
    for (let y = 0; y < height; y++) {
      readSync(this.#fd, row, 0, row.length, 4 * (largest.width * (top + y) + left));
      for (let x = 0; x < width; x++) {
        const at = 3 * (width * y + x);
        rgb[at] = row[4 * x + 2] ?? 0;
        rgb[at + 1] = row[4 * x + 1] ?? 0;
        rgb[at + 2] = row[4 * x] ?? 0;
      }
    }
    return rgb;
  }

  /** Milliseconds until the framebuffer shows `picture`, or an error with the first pixel that differs. */
  async shows(picture: Picture, left = 0, top = 0): Promise<number> {
    const began = Date.now();
    for (;;) {
      const { width, height } = picture;
      const wrong = difference({ width, height, rgb: this.pixels(width, height, left, top) }, picture);
      if (wrong === undefined) return Date.now() - began;
      if (Date.now() - began > 10_000) throw new Error(wrong);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  end(): void {
    this.#child.kill();
    closeSync(this.#fd);
  }
}

const modes = [
  ["text mode", "t", 720, 400],
  ["800x600, 16 bits", "a", 800, 600],
  ["1024x768, 16 bits", "b", 1024, 768],
  ["800x600, 32 bits", "c", 800, 600],
  ["1024x768, 32 bits", "d", 1024, 768],
] as const;

describe("a framebuffer that takes every mode", () => {
  let client: Client;
  beforeAll(async () => {
    client = new Client("framebuffer");
    await client.event("connected");
  });
  afterAll(() => client.end());

  it.each(modes)("%s: every pixel is QEMU's", async (_name, letter, width, height) => {
    client.tell({ do: "attend" });
    await machine.draw(letter);
    const picture = await machine.picture();
    expect(picture).toMatchObject({ width, height });
    await client.shows(picture);
    client.tell({ do: "attend" });
    await machine.draw("f");
    await client.shows(await machine.picture());
  });

  it("nothing is copied while nothing changes", async () => {
    const before = await client.counters();
    await new Promise((resolve) => setTimeout(resolve, 3000));
    const after = await client.counters();
    expect({ ...after, now: 0 }).toEqual({ ...before, now: 0 });
  });
});

it("a framebuffer of one mode shows the screen in its middle, the rest black", async () => {
  const client = new Client("fixed", { fixed: true });
  await machine.draw("c");
  const picture = await machine.picture();
  await client.shows(picture, 112, 84);
  expect(client.pixels(1024, 84).every((byte) => byte === 0)).toBe(true);
  expect(client.pixels(112, 768).every((byte) => byte === 0)).toBe(true);
  expect(client.pixels(112, 768, 912).every((byte) => byte === 0)).toBe(true);
  client.end();
});

it("a screen that is too large is shrunk, its shape kept", async () => {
  const client = new Client("shrunk", { largest: { width: 640, height: 480 }, fixed: true });
  await machine.draw("d");
  const event = await client.event("resized");
  expect(event).toMatchObject({ view: { target: { x: 0, y: 0, width: 640, height: 480 } } });
  client.end();
});

it("keys arrive as the scan codes of the keyboard they were pressed on", async () => {
  const client = new Client("keys");
  await client.event("resized");
  const said: string[] = [];
  // Linux' numbers of some keys of each kind, and what a PS/2 keyboard of set 1 sends for them.
  const keys: readonly (readonly [number, string])[] = [
    [1, "k01 k81"],
    [30, "k1e k9e"],
    [88, "k58 kd8"],
    [86, "k56 kd6"],
    [96, "ke0 k1c ke0 k9c"],
    [97, "ke0 k1d ke0 k9d"],
    [103, "ke0 k48 ke0 kc8"],
    [111, "ke0 k53 ke0 kd3"],
    [125, "ke0 k5b ke0 kdb"],
    [127, "ke0 k5d ke0 kdd"],
  ];
  for (const [code, expected] of keys) {
    const key = qemuKey(code);
    client.tell({ do: "key", key, pressed: true });
    client.tell({ do: "key", key, pressed: false });
    const bytes = expected.split(" ");
    for (const _ of bytes) said.push(await machine.serial.next((line) => /^k../.test(line), expected));
    expect(said.splice(0).map((line) => line.trim())).toEqual(bytes);
  }
  client.end();
});

it("an absolute pointer moves a PS/2 mouse", async () => {
  const client = new Client("mouse");
  await client.event("resized");
  machine.tell("m");
  // The mouse acknowledges that it is on.
  await machine.serial.next((line) => /mfa/.test(line), "mouse");
  client.tell({ do: "pointer", x: 100, y: 100, buttons: 0 });
  client.tell({ do: "pointer", x: 110, y: 95, buttons: 1 });
  const packets: string[] = [];
  const next = async () => (await machine.serial.next((line) => /^m../.test(line), "packet")).trim();
  while (packets.join(" ").match(/m09 m0a m05/) === null && packets.length < 30) packets.push(await next());
  // Left button down, 10 to the right, 5 up: a mouse counts upwards.
  expect(packets.join(" ")).toMatch(/m09 m0a m05/);
  client.end();
});
