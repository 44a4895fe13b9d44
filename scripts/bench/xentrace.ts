/**
 * What `xentrace` writes: how often Xen woke each domain. The format is that of xen/include/public/trace.h: a word
 * of event (28 bits), number of further words (3) and whether a time stamp of two words follows, then those.
 * Pure.
 */

/** TRC_SCHED_RUNSTATE_CHANGE, from blocked (2) to runnable (1); the states are bits 8 and 4 of the event. */
const WAKE = 0x21001 | (2 << 8) | (1 << 4);
/** TRC_LOST_RECORDS: the buffer was full. */
const LOST = 0x1f001;

/** Classes of events that {@link wakeUps} needs, for `xentrace -e`: TRC_SCHED_MIN. */
export const TRACED = "0x21000";

/** Wake-ups of all virtual processors of each domain, by domid. Throws when Xen has dropped records. */
export function wakeUps(trace: Uint8Array): Map<number, number> {
  const view = new DataView(trace.buffer, trace.byteOffset, trace.byteLength);
  const found = new Map<number, number>();
  let at = 0;
  while (at + 4 <= trace.length) {
    const header = view.getUint32(at, true);
    const words = (header >>> 28) & 7;
    const data = at + 4 + (header >>> 31) * 8;
    const next = data + 4 * words;
    const event = header & 0x0fff_ffff;
    if (event === LOST) throw new Error("xentrace lost records: its buffer (-S) is too small");
    if (event === WAKE && words > 0 && next <= trace.length) {
      const domid = view.getUint32(data, true) >>> 16;
      found.set(domid, (found.get(domid) ?? 0) + 1);
    }
    at = next;
  }
  return found;
}
