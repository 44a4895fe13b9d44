/**
 * CD drives of a running guest: `xl cd-insert` and `xl cd-eject`.
 *
 * What libxl does (tools/libs/light/libxl_disk.c of Xen 4.20, cdrom_insert_*), all of it within 40 s, over one
 * QMP session:
 *
 *     1  QMP eject                       QEMU closes the old medium
 *     2  QMP query-fdsets, remove-fd     of a set marked `stub-devid:N`, if there is one
 *     3  device/vbd/N is detached        10 s; a descriptor that is still open can hold it up
 *     4  device/vbd/N is attached        with the new medium, or, to eject, an empty one
 *     5  QMP query-fdsets                again and again until a set is marked `stub-devid:N`: ours
 *     6  QMP blockdev-change-medium      to /dev/fdset/M as host_device; not to eject
 *
 * So a drive that comes back, empty or not, gets a set, in which QEMU alone holds the device: the agent's own
 * descriptor is closed at once. For an empty one, which may never connect, it is a pipe, which nobody opens.
 * The medium of a drive at the start needs none: QEMU has opened it by its name.
 *
 * Between 3 and 4 is nothing that waits for our kernel, which forgets a device when it finds its directory gone
 * (drivers/xen/xenbus/xenbus_probe.c, xenbus_dev_changed). Where it had no processor meanwhile it finds the next one's, keeps
 * what it has, Closed, and takes up nothing. So the agent removes the directory as soon as 3 is through, which with a block device is
 * before libxl's script has run. With dom0's QEMU libxl has no script, and may be first.
 */
import { type BlockFrontend, readCdDrive } from "../frontends/block.ts";
import { NotConnected } from "../frontends/errors.ts";
import { type FrontendOutcome, waitForFrontends } from "../frontends/wait.ts";
import { parseState, readBackend, XenbusState } from "../frontends/xenbus.ts";
import type { Logger } from "../log/logger.ts";
import { type FileSystem, type Platform, SystemError, type Timer } from "../platform/port.ts";
import { waitFor, type XenstoreClient } from "../xenstore/client.ts";
import { Looks } from "../xenstore/looks.ts";
import type { Operations } from "../xenstore/operations.ts";
import { addSet, findSets, type Qmp, removeSet, stubDevid } from "./fdsets.ts";

const directory = "device/vbd";
/** Most drives that are followed; QEMU has four, and no domain has more disks than this. */
const mostDrives = 128;

export interface CdContext {
  readonly platform: Pick<Platform, "files" | "descriptors" | "sockets" | "storage">;
  readonly store: XenstoreClient;
  readonly qmp: Qmp;
  readonly log: Logger;
  /** Milliseconds that a new medium may take to connect to its backend, and after which it is told of as late. */
  readonly deadline: number;
  readonly notice: number;
  /** Numbers of the drives that QEMU was started with, as they are. */
  readonly started: readonly number[];
  /** Gets what has not come yet, and what may be the matter. */
  warn(text: string): void;
  /** Gets the same once it has. */
  withdraw(text: string): void;
  /** Gets what keeps a medium from the guest: thing, value, remedy. */
  complain(text: string): void;
}

/** Follows all CD drives from the call of {@link follow} on. */
export class CdDrives {
  readonly #drives = new Map<number, Drive>();
  #stopped = false;

  constructor(private readonly context: CdContext) {
    for (const id of context.started) this.#drives.set(id, new Drive(context, id, true));
  }

  /** Sets the watch. Throws {@link XenstoreFailure}. */
  async follow(): Promise<void> {
    await this.context.store.watch(directory, (path) => this.#changed(path));
  }

  /** Idempotent. The watch goes with the connection: taking it back waits for xenstored. */
  stop(): void {
    this.#stopped = true;
    for (const drive of this.#drives.values()) drive.stop();
  }

  /**
   * An event at a device's own directory comes when it is made and when it is removed, and at no other time:
   * libxl replaces the whole directory.
   */
  #changed(path: string): void {
    if (this.#stopped) return;
    const [, name, below] = /^device\/vbd\/([0-9]{1,10})(\/.*)?$/.exec(path) ?? [];
    if (name === undefined) void this.#lookForDrives();
    else this.#drive(Number(name))?.changed(below === undefined);
  }

  /** The watch's first event, and the directory as a whole, which goes with its last device. */
  async #lookForDrives(): Promise<void> {
    try {
      const names = await this.context.store.tryDirectory(directory);
      for (const name of names) if (/^[0-9]{1,10}$/.test(name)) this.#drive(Number(name))?.changed(false);
      for (const [id, drive] of this.#drives) if (!names.includes(String(id))) drive.changed(true);
    } catch (error) {
      this.context.log.debug({}, `CD drives: ${String(error)}`);
    }
  }

  #drive(id: number): Drive | undefined {
    const known = this.#drives.get(id);
    if (known !== undefined || this.#drives.size >= mostDrives) return known;
    const drive = new Drive(this.context, id, false);
    this.#drives.set(id, drive);
    return drive;
  }
}

/** One number in `device/vbd/`, whatever is there at the time: other disks are left alone. */
class Drive {
  readonly #opaque: string;
  /** Counts the devices that have had this number. */
  #incarnation = 0;
  /** The one for which nothing is left to do. */
  #settled: number | undefined;
  /** What was told of a medium that is late. */
  #late: string | undefined;
  /** What was told of a medium that did not come. */
  #complaint: string | undefined;
  /** What the set that we added is of. */
  #given: string | undefined;
  readonly #looks = new Looks(() => this.#lookOnce());
  #stopped = false;
  /** Ends the wait for a device that is no longer the one. */
  #supersede: () => void = () => {};
  /** Until an empty drive is looked at once more. */
  #recheck: Timer | undefined;
  #makingWay = false;

  constructor(
    private readonly context: CdContext,
    private readonly id: number,
    started: boolean,
  ) {
    this.#opaque = stubDevid(id);
    if (started) this.#settled = 0;
  }

  changed(replaced: boolean): void {
    if (replaced) {
      this.#incarnation++;
      this.#leaveOff();
    }
    void this.#looks.take();
  }

  /** Idempotent. */
  stop(): void {
    this.#stopped = true;
    this.#leaveOff();
  }

  #leaveOff(): void {
    this.#supersede();
    this.#recheck?.cancel();
  }

  async #lookOnce(): Promise<void> {
    if (this.#stopped) return;
    try {
      await this.#look();
    } catch (error) {
      this.#failed(error);
    }
  }

  async #look(): Promise<void> {
    const { store } = this.context;
    const incarnation = this.#incarnation;
    const state = `${directory}/${this.id}/state`;
    const drive = await readCdDrive(store, this.id);
    const closing = drive === undefined || isClosing(parseState(state, await store.tryReadText(state)));
    if (incarnation !== this.#incarnation) return;
    if (closing) {
      if (drive !== undefined) void this.#makeWay(drive);
      await this.#takeBack();
    } else if (this.#settled !== incarnation) {
      let late = false;
      try {
        await this.#give(drive, incarnation);
      } catch (error) {
        // It may still come; what failed in another way fails again.
        late = error instanceof NotConnected;
        throw error;
      } finally {
        if (!late && incarnation === this.#incarnation) this.#settled = incarnation;
      }
    }
  }

  async #give(drive: BlockFrontend, incarnation: number): Promise<void> {
    const { platform, qmp, log } = this.context;
    if (!drive.empty && !(await this.#connected(drive))) return;
    const identity = drive.empty ? "nothing" : `${drive.device} ${diskSequence(platform.files, drive)}`;
    const old = await findSets(qmp, this.#opaque);
    if (incarnation !== this.#incarnation) return;
    // Two events for one device: the set may be in use already.
    if (old.length > 0 && this.#given === identity) return;
    for (const set of old) await removeSet(qmp, set);
    const fd = drive.empty ? this.#nothing() : this.#medium(drive);
    // Before the answer: without one QEMU may have it all the same.
    this.#given = identity;
    try {
      const set = await addSet(qmp, fd, this.#opaque);
      const what = drive.empty ? "is empty" : `has a new medium on ${drive.device}`;
      if (this.#complaint !== undefined) this.context.withdraw(this.#complaint);
      this.#complaint = undefined;
      log.info({}, `${drive.label} ${what}: QEMU can open it as /dev/fdset/${set}`);
    } finally {
      platform.descriptors.close(fd);
    }
    // Nobody waits for it to connect, but the next change is to find it whole.
    if (drive.empty && this.#keepsOld()) this.#recheckLater(drive, incarnation);
  }

  #recheckLater(drive: BlockFrontend, incarnation: number): void {
    const { store, notice, log } = this.context;
    const current = () => !this.#stopped && incarnation === this.#incarnation;
    if (!current()) return;
    this.#recheck = store.clock.setTimer(notice, () => {
      const failed = (error: unknown) => log.debug({}, `${drive.label}: ${String(error)}`);
      void this.#letGo(drive, current).catch(failed);
    });
  }

  /** No file of /dev, which QEMU could have replaced. */
  #nothing(): number {
    const [fd, other] = this.context.platform.sockets.pipe();
    this.context.platform.descriptors.close(other);
    return fd;
  }

  /**
   * A block device and nothing else that lies there by now: QEMU can put a FIFO in its place, which is waited for otherwise,
   * or a link to our memory, which we can read and it cannot.
   */
  #medium({ device }: BlockFrontend): number {
    const { storage, descriptors } = this.context.platform;
    const fd = storage.openNoFollow(device, { access: "read", nonBlocking: true });
    try {
      storage.deviceNumber(fd);
      return fd;
    } catch (error) {
      descriptors.close(fd);
      throw error;
    }
  }

  /** Whether it has come up; one that was replaced meanwhile is nobody's loss. */
  async #connected(drive: BlockFrontend): Promise<boolean> {
    let current = true;
    const superseded = new Promise<undefined>((resolve) => {
      this.#supersede = () => {
        current = false;
        resolve(undefined);
      };
    });
    const waiting = this.#waitFor(drive, () => current);
    const outcome = await Promise.race([waiting, superseded]);
    waiting.catch(() => {});
    this.#supersede = () => {};
    // It has come, or something else is told, or another one is waited for.
    if (this.#late !== undefined) this.context.withdraw(this.#late);
    this.#late = undefined;
    if (outcome?.connected === false) throw outcome.error;
    return outcome?.connected === true;
  }

  /** What is late is named while there is time to look, as at boot. */
  async #waitFor(drive: BlockFrontend, current: () => boolean): Promise<FrontendOutcome | undefined> {
    const { store, platform, notice, deadline } = this.context;
    const began = store.clock.now();
    const [first] = await waitForFrontends(store, platform, [drive], Math.min(notice, deadline));
    if (first === undefined || first.connected || !current()) return first;
    if (await this.#letGo(drive, current))
      throw new Error(`our kernel takes ${drive.label} for the one that was there before and has closed`);
    if (!current()) return undefined;
    if (!first.late || notice >= deadline) return first;
    this.#late = first.error.message;
    this.context.warn(this.#late);
    const all = Promise.resolve([drive]);
    return (await waitForFrontends(store, platform, [drive], deadline, all, began))[0];
  }

  /**
   * Where libxl makes a drive anew before Linux has seen that it was gone, for all that {@link #makeWay} does, Linux keeps what it
   * has of the old one, which is Closed to it: it does nothing more for it, and at the next change libxl would wait in vain for the
   * state 6 that Linux takes for written (__xenbus_switch_state). Writes it, and says whether it was so. Not at once: a
   * moment ago Linux may have seen it, and would not take up a device that has closed.
   */
  async #letGo({ path }: BlockFrontend, current: () => boolean): Promise<boolean> {
    if (!this.#keepsOld()) return false;
    return await this.context.store.transaction(async (tx) => {
      const untouched = (await tx.tryReadText(`${path}/state`)) === String(XenbusState.Initialising);
      const stale = untouched && current() && this.#keepsOld();
      if (stale) await tx.write(`${path}/state`, String(XenbusState.Closed));
      return stale;
    });
  }

  /** Whether Linux has a device of this number that has closed. */
  #keepsOld(): boolean {
    return textOf(this.context.platform.files, `/sys/bus/xen/devices/vbd-${this.id}/state`) === "Closed";
  }

  /**
   * Removes the directory of a drive that libxl detaches, once the backend has ended too: what each kind of backend makes of a frontend
   * that goes before it has, libxl, which waits for its state 6, need not find out.
   */
  async #makeWay({ path, label }: BlockFrontend): Promise<void> {
    if (this.#makingWay) return;
    this.#makingWay = true;
    const { store, log, deadline } = this.context;
    const closed = String(XenbusState.Closed);
    try {
      const { path: backend } = await readBackend(store, path);
      const goes = async (view: Operations) =>
        (await view.tryReadText(`${backend}/online`)) === "0" &&
        (await view.tryReadText(`${path}/state`)) === closed;
      if (!(await goes(store))) return;
      await waitFor(store, `${backend}/state`, (state) => state !== String(XenbusState.Closing), deadline);
      await store.transaction(async (tx) => {
        const ended = (await tx.tryReadText(`${backend}/state`)) === closed && (await goes(tx));
        if (ended) await tx.remove(path);
      });
    } catch (error) {
      // libxl was there first.
      log.debug({}, `${label}: ${String(error)}`);
    } finally {
      this.#makingWay = false;
    }
  }

  /** libxl has done so before it detaches; for whoever else detaches a drive, it must not be held. */
  async #takeBack(): Promise<void> {
    if (this.#given === undefined) return;
    this.#given = undefined;
    for (const set of await findSets(this.context.qmp, this.#opaque)) await removeSet(this.context.qmp, set);
  }

  #failed(error: unknown): void {
    if (this.#stopped) return;
    const reason = error instanceof Error ? error.message : String(error);
    const replaced = error instanceof SystemError && ["ELOOP", "ENOTBLK"].includes(error.code);
    const remedy = replaced
      ? "; QEMU has put it in the device's place, and cannot be trusted: restart the guest"
      : error instanceof SystemError
        ? "; see dom0's kernel log about the image"
        : "; xl gives up after 40 s: then eject and insert again";
    const before = this.#complaint;
    this.#complaint = `CD drive device/vbd/${this.id}: no new medium for the guest: ${reason}${remedy}`;
    this.context.complain(this.#complaint);
    // Only the last is the matter, and it alone is withdrawn later.
    if (before !== undefined && before !== this.#complaint) this.context.withdraw(before);
  }
}

function isClosing(state: number | undefined): boolean {
  return state === undefined || state === XenbusState.Closing || state === XenbusState.Closed;
}

/** Linux's number of this very disk, which no other one gets until the next boot; "" before Linux 5.15. */
function diskSequence(files: FileSystem, { linuxName }: BlockFrontend): string {
  return textOf(files, `/sys/block/${linuxName}/diskseq`);
}

/** What sysfs says; "" where it has no such file, or none any more: Linux drops a device also while it is read. */
function textOf(files: FileSystem, path: string): string {
  try {
    return String.fromCharCode(...files.readFile(path, 64)).trim();
  } catch (error) {
    if (error instanceof SystemError && ["ENOENT", "ENODEV"].includes(error.code)) return "";
    throw error;
  }
}
