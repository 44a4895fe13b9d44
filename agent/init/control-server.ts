import { encodeText } from "../bytes/text.ts";
import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import { LineTooLong, readLine } from "../platform/read-line.ts";
import { type ByteStream, DescriptorStream } from "../platform/stream.ts";
import { type Answer, controlSocket, longestQuestion, type Question } from "./control-protocol.ts";

/** Connections that are answered at once; more wait in the socket's backlog. */
const mostConnections = 8;
/** Milliseconds until a question must have been asked: who says nothing keeps others waiting. */
const questionDeadline = 10_000;

/**
 * Answers the command line in the debug shell. `answer` returns what becomes the result; what it throws
 * becomes the error.
 */
export function serveControl(
  platform: Platform,
  log: Logger,
  answer: (question: Question) => Promise<unknown>,
): void {
  const listener = platform.sockets.listenUnix(controlSocket);
  let open = 0;
  const accept = () => {
    while (open < mostConnections) {
      const fd = platform.sockets.accept(listener);
      if (fd === null) break;
      open += 1;
      const stream = new DescriptorStream(platform.descriptors, fd, controlSocket);
      converse(platform, stream, answer)
        .catch((error: unknown) => log.debug({}, `control socket: ${String(error)}`))
        .finally(() => {
          stream.close();
          open -= 1;
          platform.descriptors.onReadable(listener, accept);
        });
    }
    // Level-triggered: a backlog that may not be taken yet must not wake the loop again and again.
    platform.descriptors.onReadable(listener, open < mostConnections ? accept : null);
  };
  platform.descriptors.onReadable(listener, accept);
}

async function converse(
  { clock }: Pick<Platform, "clock">,
  stream: ByteStream,
  answer: (question: Question) => Promise<unknown>,
): Promise<void> {
  let reply: Answer;
  const silence = clock.setTimer(questionDeadline, () => stream.close());
  try {
    const line = await readLine(stream, longestQuestion).finally(() => silence.cancel());
    if (line === null) return;
    reply = { result: (await answer(JSON.parse(line) as Question)) ?? null };
  } catch (error) {
    if (error instanceof LineTooLong) throw error;
    reply = { error: error instanceof Error ? error.message : String(error) };
  }
  await stream.write(encodeText(`${JSON.stringify(reply)}\n`));
}
