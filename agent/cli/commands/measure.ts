import { silentLogger } from "../../log/logger.ts";
import type { Platform } from "../../platform/port.ts";
import { SaveConsole } from "../../savestate/console.ts";
import { DescriptorStore } from "../../savestate/descriptor-store.ts";
import { DiskWriter } from "../../savestate/disk.ts";
import { TransferError } from "../../savestate/errors.ts";
import { ExtentWriter, type WrittenExtent } from "../../savestate/extent.ts";
import { defaultChunkSize, nilUuid } from "../../savestate/format.ts";
import { HelperLink } from "../../savestate/helper-link.ts";
import { release, StateDisk } from "../../savestate/state-disk.ts";
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
        describe:
          "A block device, whose contents are lost; console; helper, all the way to dom0's file; or hold, which writes nothing",
      })
      .option("bytes", {
        type: "number",
        default: 0,
        describe:
          "Take no more than so much of standard input; with hold, have dom0 attach a state disk of so much at least until standard input ends",
      })
      .option("transient", {
        type: "boolean",
        default: false,
        describe: "With a block device: flush nothing, as on the disk that dom0 attaches for a transfer",
      })
      .example(
        "stubdom measure --bytes 4194304 /dev/xvdb < /dev/zero",
        "How long 4 MiB of state take to a disk",
      ),
  async run(platform, args) {
    if (Number.isNaN(args.bytes)) throw new RangeError("--bytes is no number: give bytes in decimal");
    if (args.target === "hold") return hold(platform, Number(args.bytes));
    // The event loop collects the garbage of the command line's own start, which is none of what is measured.
    await new Promise<void>((resolve) => platform.clock.setTimer(0, resolve));
    const began = platform.clock.now();
    const [target, most] = [String(args.target), Number(args.bytes) || Number.POSITIVE_INFINITY];
    const { commit } = await (target === "console"
      ? toConsole(platform, most)
      : target === "helper"
        ? toHelper(platform, most)
        : toDisk(platform, most, target, args.transient === true));
    const seconds = (platform.clock.now() - began) / 1000;
    const rate = commit.length / seconds / 1e6;
    return { bytes: commit.length, seconds: seconds.toFixed(3), megabytesPerSecond: rate.toFixed(3) };
  },
  render: fields,
};

async function toDisk(
  platform: Platform,
  most: number,
  path: string,
  transient: boolean,
): Promise<WrittenExtent> {
  const fd = platform.descriptors.open(path, { access: "read-write", direct: true });
  const store = new DescriptorStore(platform, fd, { transient });
  try {
    return await fill(platform, store, most);
  } finally {
    store.close();
  }
}

/** As when the toolstack asks for it, but for QEMU. */
async function toHelper(platform: Platform, most: number): Promise<WrittenExtent> {
  return withHelper(platform, 0, async (disk, helper) => {
    const written = await fill(platform, disk.store, most).finally(() => disk.close());
    await helper.ask({ verb: "commit", bytes: written.commit.length }, "placed");
    return written;
  });
}

/** A state disk for others to write to, the same vbd as in earnest. */
async function hold(platform: Platform, bytes: number) {
  return withHelper(platform, bytes, async (disk) => {
    const { size } = disk.store;
    const rest = new Uint8Array(4096);
    while (platform.descriptors.read(0, rest) !== 0);
    disk.close();
    return { bytes: size };
  });
}

async function withHelper<T>(
  platform: Platform,
  bytes: number,
  use: (disk: StateDisk, helper: HelperLink) => Promise<T>,
): Promise<T> {
  const xenstore = XenstoreClient.connect(platform);
  try {
    const [domid, target] = (
      await Promise.all([xenstore.readText("domid"), xenstore.readText("target")])
    ).map(Number);
    if (domid === undefined || target === undefined) throw new TransferError("this is no stub domain");
    const helper = new HelperLink(xenstore, platform.clock, silentLogger, domid, target);
    try {
      const context = { platform, xenstore, log: silentLogger };
      const disk = await StateDisk.attach(context, helper, { verb: "save", bytes });
      return await use(disk, helper);
    } finally {
      await release(helper, silentLogger);
    }
  } finally {
    xenstore.close();
  }
}

async function fill(platform: Platform, store: DescriptorStore, most: number): Promise<WrittenExtent> {
  const writer = await DiskWriter.begin(store, { uuid: nilUuid, qemuVersion: "" }, platform.storage.hash);
  await pass(platform, writer, most);
  return writer.commit();
}

async function toConsole(platform: Platform, most: number): Promise<WrittenExtent> {
  const xenstore = XenstoreClient.connect(platform);
  const console = await SaveConsole.open(platform, xenstore);
  try {
    const header = { uuid: nilUuid, qemuVersion: "", chunkSize: defaultChunkSize, sequence: 1 };
    const writer = new ExtentWriter(console, header, platform.storage.hash, platform.storage.buffer);
    await pass(platform, writer, most);
    const written = await writer.finish();
    await console.drain();
    return written;
  } finally {
    console.close();
    xenstore.close();
  }
}

async function pass({ descriptors }: Platform, writer: StateWriter, most: number): Promise<void> {
  for (let left = most; left > 0; ) {
    const count = descriptors.read(0, writer.room.subarray(0, Math.min(writer.room.length, left)));
    if (count === 0) return;
    if (count === null) continue;
    left -= count;
    await writer.filled(count);
  }
}
