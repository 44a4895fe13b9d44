import { silentLogger } from "../../log/logger.ts";
import type { Platform } from "../../platform/port.ts";
import { SaveConsole } from "../../savestate/console.ts";
import { DescriptorStore } from "../../savestate/descriptor-store.ts";
import { DiskWriter } from "../../savestate/disk.ts";
import { TransferError } from "../../savestate/errors.ts";
import { ExtentWriter, type WrittenExtent } from "../../savestate/extent.ts";
import { defaultChunkSize, nilUuid } from "../../savestate/format.ts";
import { HelperLink } from "../../savestate/helper-link.ts";
import { StateDisk } from "../../savestate/state-disk.ts";
import { XenstoreClient } from "../../xenstore/client.ts";
import { type Command, fields } from "../command.ts";

interface StateWriter {
  readonly room: Uint8Array;
  filled(count: number): Promise<void>;
}

export const measure: Command = {
  usage: "measure <target>",
  summary: "Write standard input to a disk or console as if it were QEMU's state, and time it",
  options: (yargs) =>
    yargs
      .positional("target", {
        type: "string",
        describe: "A block device, whose contents are lost; console; or helper, all the way to dom0's file",
      })
      .example(
        "dd if=/dev/zero bs=64k count=64 | stubdom measure /dev/xvdb",
        "How long 4 MiB of state take to a disk",
      ),
  async run(platform, args) {
    const began = platform.clock.now();
    const way = args.target === "console" ? toConsole : args.target === "helper" ? toHelper : toDisk;
    const { commit } = await way(platform, String(args.target));
    const seconds = (platform.clock.now() - began) / 1000;
    const rate = commit.length / seconds / 1e6;
    return { bytes: commit.length, seconds: seconds.toFixed(3), megabytesPerSecond: rate.toFixed(3) };
  },
  render: fields,
};

async function toDisk(platform: Platform, path: string): Promise<WrittenExtent> {
  const fd = platform.descriptors.open(path, { access: "read-write", direct: true });
  const store = new DescriptorStore(platform, fd);
  try {
    return await fill(platform, store);
  } finally {
    store.close();
  }
}

/** As when the toolstack asks for it, but for QEMU. */
async function toHelper(platform: Platform): Promise<WrittenExtent> {
  const xenstore = XenstoreClient.connect(platform);
  const [domid, target] = (await Promise.all([xenstore.readText("domid"), xenstore.readText("target")])).map(
    Number,
  );
  if (domid === undefined || target === undefined) throw new TransferError("this is no stub domain");
  const helper = new HelperLink(xenstore, platform.clock, silentLogger, domid, target);
  const attached = await helper.ask({ verb: "save", bytes: 0 }, "attached");
  const disk = await StateDisk.open(platform, xenstore, helper, "read-write", attached);
  const written = await fill(platform, disk.store).finally(() => disk.close());
  await helper.ask({ verb: "commit", bytes: written.commit.length }, "placed");
  xenstore.close();
  return written;
}

async function fill(platform: Platform, store: DescriptorStore): Promise<WrittenExtent> {
  const writer = await DiskWriter.begin(store, { uuid: nilUuid, qemuVersion: "" }, platform.storage.hash);
  await pass(platform, writer);
  return writer.commit();
}

async function toConsole(platform: Platform): Promise<WrittenExtent> {
  const xenstore = XenstoreClient.connect(platform);
  const console = await SaveConsole.open(platform, xenstore);
  try {
    const header = { uuid: nilUuid, qemuVersion: "", chunkSize: defaultChunkSize, sequence: 1 };
    const writer = new ExtentWriter(console, header, platform.storage.hash, platform.storage.buffer);
    await pass(platform, writer);
    const written = await writer.finish();
    await console.drain();
    return written;
  } finally {
    console.close();
    xenstore.close();
  }
}

async function pass({ descriptors }: Platform, writer: StateWriter): Promise<void> {
  for (;;) {
    const count = descriptors.read(0, writer.room);
    if (count === 0) return;
    if (count !== null) await writer.filled(count);
  }
}
