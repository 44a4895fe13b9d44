import { concatBytes } from "../bytes/bytes.ts";
import { decodeText, encodeText } from "../bytes/text.ts";
import { type Answer, controlSocket, type Question } from "../init/control-protocol.ts";
import type { Platform } from "../platform/port.ts";
import { DescriptorStream } from "../platform/stream.ts";

/** The running PID 1 could not be asked, or answered with an error. */
export class AskError extends Error {
  override readonly name = "AskError";
}

/** Asks the agent that runs as PID 1 in this stub domain. */
export async function ask(platform: Platform, question: Question): Promise<unknown> {
  let fd: number;
  try {
    fd = platform.sockets.connectUnix(controlSocket);
  } catch (error) {
    throw new AskError(
      `no agent answers on ${controlSocket} (${String(error)}): this command works inside a stub domain that was started with stubdom.shell=1`,
    );
  }
  const stream = new DescriptorStream(platform.descriptors, fd, controlSocket);
  try {
    await stream.write(encodeText(`${JSON.stringify(question)}\n`));
    const parts: Uint8Array[] = [];
    for (let chunk = await stream.read(); chunk !== null; chunk = await stream.read()) parts.push(chunk);
    const answer = JSON.parse(decodeText(concatBytes(parts))) as Answer;
    if ("error" in answer) throw new AskError(answer.error);
    return answer.result;
  } finally {
    stream.close();
  }
}
