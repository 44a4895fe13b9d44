/**
 * The screen's client as a program of its own, compiled like the agent: it draws QEMU's screen into a file
 * that stands for the framebuffer. JSON lines in and out.
 *
 *     driver '{"socket": "...", "file": "...", "largest": {"width": 1024, "height": 768}}'
 */
import "../../../agent/platform/quickjs/globals.ts";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { type Framebuffers, SystemError } from "../../../agent/platform/port.ts";
import { Canvas } from "../../../agent/screen/canvas.ts";
import { RfbClient } from "../../../agent/screen/client.ts";
import { zeroCounters } from "../../../agent/screen/counters.ts";
import type { Size } from "../../../agent/screen/rfb.ts";
import { createPlatform, programArguments } from "./platform.ts";

interface Task {
  readonly socket: string;
  readonly file: string;
  readonly largest: Size;
  /** As with a backend that lacks feature-resize. */
  readonly fixed?: boolean;
}

type Command =
  | { readonly do: "key"; readonly key: number; readonly pressed: boolean }
  | { readonly do: "pointer"; readonly x: number; readonly y: number; readonly buttons: number }
  | { readonly do: "attend" | "counters" };

const platform = createPlatform();
const { clock, descriptors, sockets } = platform;

function say(event: string, fields: object = {}): void {
  let rest = encodeText(`${JSON.stringify({ event, ...fields })}\n`);
  while (rest.length > 0) rest = rest.subarray(descriptors.write(1, rest) ?? 0);
}

/** Modes as fbfront has them: none beyond the first, and one stride for all. */
function fileModes({ largest, fixed }: Task): Pick<Framebuffers, "mode" | "setMode"> {
  let { width, height } = largest;
  const stride = 4 * width;
  const size = stride * height;
  return {
    mode: () => ({ width, height, stride, size, bitsPerPixel: 32, red: 16, green: 8, blue: 0 }),
    setMode(_fd, w, h) {
      if (fixed || w > largest.width || h > largest.height)
        throw new SystemError("EINVAL", "mode", `${w}x${h}`);
      width = w;
      height = h;
    },
  };
}

async function main(): Promise<void> {
  const task = JSON.parse(programArguments()[1] ?? "") as Task;
  const framebuffers = { ...platform.framebuffers, ...fileModes(task) };
  const canvas = new Canvas(framebuffers, descriptors.open(task.file, { access: "read-write" }));
  const counters = zeroCounters();
  const client = new RfbClient(sockets.connectUnix(task.socket), canvas, {
    clock,
    descriptors,
    framebuffers,
    counters,
    pause: () => 0,
    resized: (screen) => say("resized", { screen, view: canvas.view }),
  });
  const obey = (command: Command) => {
    if (command.do === "key") client.key(command.key, command.pressed);
    else if (command.do === "pointer") client.pointer(command.x, command.y, command.buttons);
    else if (command.do === "attend") client.attend();
    else say("counters", { ...counters, now: clock.now() });
  };
  let received = "";
  const input = new Uint8Array(4096);
  descriptors.onReadable(0, () => {
    const length = descriptors.read(0, input);
    if (length === 0) platform.processes.exit(0);
    received += decodeText(input.subarray(0, length ?? 0));
    const lines = received.split("\n");
    received = lines.pop() ?? "";
    for (const text of lines) obey(JSON.parse(text) as Command);
  });
  say("connected");
  await client.run();
}

main().catch((error) => {
  say("failed", { error: String(error) });
  platform.processes.exit(1);
});
