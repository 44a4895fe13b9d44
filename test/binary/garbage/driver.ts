/**
 * Makes rings of garbage, a few a round of the event loop, compiled like the agent.
 *
 *     driver       prints {"grown": KIB}, by how much more memory was resident than before the first of them
 */
import "../../../agent/platform/quickjs/globals.ts";
import { decodeText, encodeText } from "../../../agent/bytes/text.ts";
import { createPlatform } from "../screen/platform.ts";

const { clock, descriptors, processes } = createPlatform();

interface Ring {
  next?: Ring;
}

/** Two objects that nobody but they themselves know. */
function ring(): Ring {
  const first: Ring = {};
  first.next = { next: first };
  return first;
}

/** In KiB. */
function resident(): number {
  const fd = descriptors.open("/proc/self/status", { access: "read" });
  const bytes = new Uint8Array(4096);
  const status = decodeText(bytes.subarray(0, descriptors.read(fd, bytes) ?? 0));
  descriptors.close(fd);
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1]);
}

// So much is in use that QuickJS by itself would let 2 MiB gather.
const inUse = Array.from({ length: 20_000 }, ring);
let before = 0;
let most = 0;

function round(left: number): void {
  for (let n = 0; n < 4; n++) ring();
  if (left % 500 === 0) {
    if (before === 0) before = resident();
    most = Math.max(most, resident());
  }
  if (left > 0) {
    clock.setTimer(0, () => round(left - 1));
    return;
  }
  descriptors.write(1, encodeText(`${JSON.stringify({ grown: most - before, inUse: inUse.length })}\n`));
  processes.exit(0);
}

round(10_000);
