/**
 * QEMU's sets of descriptors (`add-fd`, `query-fdsets`, `remove-fd` of its QMP), which a file name
 * `/dev/fdset/N` opens. They are QEMU's, not a monitor's: what one monitor has added every other one sees.
 */
import type { QmpClient } from "../qmp/client.ts";
import { QmpCommandError, QmpFramingError } from "../qmp/errors.ts";
import { isJsonObject, type JsonValue } from "../qmp/json.ts";

/**
 * How long QEMU may take for one command, in milliseconds: libxl looks for a set for 40 s, and a QEMU that is held up meanwhile, by a
 * disk of dom0's perhaps, still takes what it is given.
 */
const patience = 40_000;

export type Qmp = Pick<QmpClient, "execute" | "executeWith">;

/**
 * The text by which libxl finds the descriptor of a stub domain's disk (tools/libs/light/libxl_disk.c of Xen
 * 4.20, query_fdsets_find_fdset). `devid` is the disk's number in `device/vbd/`.
 */
export function stubDevid(devid: number): string {
  return `stub-devid:${devid}`;
}

/**
 * The sets that hold a descriptor with this opaque text, in an answer to `query-fdsets`:
 *
 *     [{"fdset-id": 0, "fds": [{"fd": 30, "opaque": "stub-devid:5632"}]}]
 *
 * @throws QmpFramingError when the answer has another shape
 */
export function setsWith(opaque: string, answer: JsonValue): number[] {
  if (!Array.isArray(answer)) throw new QmpFramingError("query-fdsets: the answer is no list");
  return answer.flatMap((set) => {
    const id = isJsonObject(set) ? set["fdset-id"] : undefined;
    const fds = isJsonObject(set) ? set.fds : undefined;
    if (typeof id !== "number" || !Array.isArray(fds)) {
      throw new QmpFramingError("query-fdsets: a set without fdset-id and fds");
    }
    return fds.some((fd) => isJsonObject(fd) && fd.opaque === opaque) ? [id] : [];
  });
}

export async function findSets(qmp: Qmp, opaque: string): Promise<number[]> {
  return setsWith(opaque, await qmp.execute("query-fdsets", {}, patience));
}

/** Adds a copy of `descriptor` as a set of its own; the caller's stays open. @returns the set's number */
export async function addSet(qmp: Qmp, descriptor: number, opaque: string): Promise<number> {
  const answer = await qmp.executeWith(descriptor, "add-fd", { opaque }, patience);
  const id = isJsonObject(answer) ? answer["fdset-id"] : undefined;
  if (typeof id !== "number") throw new QmpFramingError("add-fd: the answer has no fdset-id");
  return id;
}

/** Takes a set away; one that somebody else has taken away meanwhile is no error. */
export async function removeSet(qmp: Qmp, id: number): Promise<void> {
  try {
    await qmp.execute("remove-fd", { "fdset-id": id }, patience);
  } catch (error) {
    if (!(error instanceof QmpCommandError)) throw error;
  }
}
