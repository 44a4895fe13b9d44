/**
 * The network joint as a program of its own, compiled like the agent: it joins the NICs that its argument
 * names, in whatever network namespace it is started, and stands in for QEMU behind them. JSON lines in
 * and out.
 *
 *     driver '{"kind": "tc", "nics": [{"devid": 0, "mac": "..."}], "behind": "guest"}'
 *
 * behind "guest": frames go to and from a second TAP, `guestN`, to be moved into the namespace that plays
 * the guest. behind "test": frames are printed, and written with {"do": "send"}.
 */
import "../../../agent/platform/quickjs/globals.ts";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { type Joint, type JointKind, NetworkJoiner } from "../../../agent/frontends/net/joint.ts";
import type { EmulatedNic } from "../../../agent/frontends/net/match.ts";
import { createPlatform, programArguments } from "./platform.ts";

interface Task {
  readonly kind: JointKind;
  readonly nics: readonly EmulatedNic[];
  readonly behind: "guest" | "test";
}

type Command =
  | { readonly do: "send"; readonly nic: number; readonly frame: string }
  | { readonly do: "largest" | "part"; readonly nic: number }
  | { readonly do: "close" };

const FRAME_MAX = 70_000;

const platform = createPlatform();
const { descriptors } = platform;
const frame = new Uint8Array(FRAME_MAX);
/** Longest frame that each NIC's QEMU was handed. */
const largest = new Map<number, number>();

function say(event: string, fields: object = {}): void {
  let rest = encodeText(`${JSON.stringify({ event, ...fields })}\n`);
  while (rest.length > 0) rest = rest.subarray(descriptors.write(1, rest) ?? 0);
}

function hex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function unhex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16));
}

/** Calls `take` with each frame of `fd` as it comes; an interface that is down drops what is written. */
function onFrames(fd: number, take: (frame: Uint8Array) => void): void {
  descriptors.onReadable(fd, () => {
    const length = descriptors.read(fd, frame);
    if (length !== null && length > 0) take(frame.subarray(0, length));
  });
}

function send(fd: number, bytes: Uint8Array): void {
  try {
    descriptors.write(fd, bytes);
  } catch (error) {
    say("dropped", { error: String(error) });
  }
}

function standBehind(joint: Joint, behind: Task["behind"]): void {
  const { devid } = joint.nic;
  const guest = behind === "guest" ? platform.sockets.openTap(`guest${devid}`, false) : undefined;
  onFrames(joint.descriptor, (bytes) => {
    largest.set(devid, Math.max(largest.get(devid) ?? 0, bytes.length));
    if (guest === undefined) say("frame", { nic: devid, frame: hex(bytes) });
    else send(guest, bytes);
  });
  if (guest !== undefined) onFrames(guest, (bytes) => send(joint.descriptor, bytes));
  joint.ended.then(() => say("ended", { nic: devid }));
}

async function obey(command: Command, joiner: NetworkJoiner, joints: readonly Joint[]): Promise<void> {
  if (command.do === "close") {
    await joiner.close();
    say("closed");
    return platform.processes.exit(0);
  }
  const joint = joints.find(({ nic }) => nic.devid === command.nic);
  if (joint === undefined) throw new Error(`no NIC ${command.nic}`);
  if (command.do === "send") send(joint.descriptor, unhex(command.frame));
  else if (command.do === "part") {
    // Its descriptor closes with the joint.
    descriptors.onReadable(joint.descriptor, null);
    await joint.tearDown();
  } else say("largest", { nic: command.nic, bytes: largest.get(command.nic) ?? 0 });
}

async function main(): Promise<void> {
  const task = JSON.parse(programArguments()[1] ?? "") as Task;
  const line = (level: string) => (_fields: object, message: string) => say("log", { level, message });
  const log = { debug: line("debug"), info: line("info"), warn: line("warn"), error: line("error") };
  const joiner = new NetworkJoiner(platform, task.kind, log);
  const started = platform.clock.now();
  const joints = await joiner.joinAll(task.nics);
  const milliseconds = platform.clock.now() - started;
  for (const joint of joints) standBehind(joint, task.behind);
  say("joined", { milliseconds, joints: joints.map(({ front, tap }) => [tap.name, front.name]) });

  let received = "";
  const input = new Uint8Array(4096);
  descriptors.onReadable(0, () => {
    const length = descriptors.read(0, input);
    if (length === 0) platform.processes.exit(0);
    received += decodeText(input.subarray(0, length ?? 0));
    const lines = received.split("\n");
    received = lines.pop() ?? "";
    for (const text of lines) void obey(JSON.parse(text) as Command, joiner, joints);
  });
}

main().catch((error) => {
  say("failed", { error: String(error) });
  platform.processes.exit(1);
});
