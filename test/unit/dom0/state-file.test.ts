import { beforeEach, expect, test } from "vitest";
import { extractState } from "../../../agent/dom0/extract.ts";
import { readStateFile, writeStateFile } from "../../../agent/dom0/state-file.ts";
import { type FakeProcess, FakeXenHost } from "../../fakes/xen-host.ts";
import { FakeXenstored } from "../../fakes/xenstored.ts";
import { meta, randomBytes } from "../savestate/support.ts";

const path = "/root/state";
let host: FakeXenHost;
let one: FakeProcess;
let other: FakeProcess;

beforeEach(() => {
  host = new FakeXenHost(new FakeXenstored());
  host.dom0Files.set("/root/", { bytes: new Uint8Array(0) });
  [one, other] = [host.process(0), host.process(0)];
});

const write = (process: FakeProcess, to: string, state: Uint8Array, held?: Promise<void>) =>
  writeStateFile(process.platform, to, meta, async (writer) => {
    await held;
    await writer.append(state);
  });

const same = (file: Uint8Array | undefined, state: Uint8Array) => Buffer.from(file ?? []).equals(state);

/** The state in the file, which is whole. */
async function stateIn(file: string): Promise<Uint8Array> {
  const parts: Uint8Array[] = [];
  const report = await readStateFile(one.platform, file, async (part) => void parts.push(part.slice()));
  expect(report).toMatchObject({ whole: true });
  return Buffer.concat(parts);
}

test("of two commands that write one state file each is whole, and the later one's stays", async () => {
  const [early, late] = [randomBytes(20_000, 1), randomBytes(300_000, 2)];
  let go = () => {};
  const held = new Promise<void>((resolve) => {
    go = resolve;
  });
  const slow = write(one, path, late, held);
  await write(other, path, early);
  expect(same(await stateIn(path), early)).toBe(true);
  go();
  await slow;
  expect(same(await stateIn(path), late)).toBe(true);
  expect([...host.dom0Files.keys()].sort()).toEqual(["/root/", path]);
});

test("of two commands that extract to one file each has its own state there when it says so", async () => {
  const [short, long] = [randomBytes(20_000, 1), randomBytes(1_000_000, 2)];
  await write(one, "/root/short", short);
  await write(one, "/root/long", long);
  const slow = extractState(one.platform, "/root/long", path);
  await extractState(other.platform, "/root/short", path);
  expect(same(host.file(path), short)).toBe(true);
  await slow;
  expect(same(host.file(path), long)).toBe(true);
  expect([...host.dom0Files.keys()].sort()).toEqual(["/root/", "/root/long", "/root/short", path]);
});

test("what fails when the file has its name already is told as it is", async () => {
  host.dom0Files.delete("/root/");
  await expect(write(one, path, randomBytes(10, 1))).rejects.toThrow("open /root/: ENOENT");
});
