/** Writes the golden state disk anew: `npx tsx test/golden/savestate/make.ts`. Look at the difference. */
import { writeFileSync } from "node:fs";
import { openDisk } from "../../../agent/savestate/disk.ts";
import { firstExtent } from "../../../agent/savestate/format.ts";
import { xxh64 } from "../../fakes/xxh64.ts";
import { MemoryStore, randomBytes, writeState } from "../../unit/savestate/support.ts";

const store = new MemoryStore(new Uint8Array(firstExtent));
await writeState(store, randomBytes(10_000, 7));
await writeState(store, randomBytes(5_000, 8), { qemuVersion: "" });
const { anchor } = await openDisk(store, xxh64);
writeFileSync(
  new URL("two-states.disk", import.meta.url),
  store.contents.subarray(0, anchor.offset + anchor.size),
);
