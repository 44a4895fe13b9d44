import type { Logger } from "../log/logger.ts";
import type { Platform } from "../platform/port.ts";
import { helperHome } from "../savestate/protocol.ts";
import { version } from "../version.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { backends, detachDisk, removeIfThere } from "./attachment.ts";
import { BackendQemu } from "./backend-qemu.ts";
import { BackingPool } from "./backing.ts";
import { BackendCdDrives, QmpCdBackend } from "./cd-drives.ts";
import { ClientWatch } from "./client-watch.ts";
import { UnservedKeyboards } from "./keyboards.ts";
import { PciList } from "./pci-list.ts";
import { ScreenWatch } from "./screen.ts";
import { type HelperContext, serves } from "./session.ts";
import { type HelperSettings, unfinishedSave } from "./settings.ts";

/** Another helper runs; two would fight over the same disks. */
export class HelperRunning extends Error {
  override readonly name = "HelperRunning";
}

/** `dom0 status` has the lock too, for a moment: what is held for a second is a helper's. In milliseconds. */
const lockInterval = 100;
const lockAttempts = 11;

export function lockPath(settings: HelperSettings): string {
  return `${settings.directory}/lock`;
}

interface Known {
  client?: ClientWatch;
  screen?: ScreenWatch;
  drives?: BackendCdDrives;
  devices?: PciList;
  keyboards?: UnservedKeyboards;
  stop(): void;
}

/**
 * The helper in dom0: knows every stub domain from its start to its end and serves each through a
 * {@link ClientWatch}.
 */
export class Helper {
  readonly #context: HelperContext;
  /** Every domain but dom0; a client once it has turned out to be a stub domain. */
  readonly #domains = new Map<number, Known>();
  #rescan: Promise<void> = Promise.resolve();
  #locked = false;
  #stopping = false;

  constructor(
    platform: Platform,
    private readonly xenstore: XenstoreClient,
    private readonly log: Logger,
    private readonly settings: HelperSettings,
    private readonly lost: (error: unknown) => void,
  ) {
    this.#context = { platform, xenstore, log, settings, pool: new BackingPool(platform, settings, log) };
  }

  get clients(): readonly ClientWatch[] {
    return [...this.#domains.values()].flatMap(({ client }) => client ?? []);
  }

  /** @throws HelperRunning, SystemError, XenstoreFailure */
  async start(): Promise<void> {
    const { platform, pool } = this.#context;
    await this.#takeLock();
    pool.check();
    for (const name of platform.files.readDirectory(this.settings.xenDirectory)) {
      if (!unfinishedSave.test(name)) continue;
      this.log.info({}, `${name}: left by a helper that was ended in the middle, removed`);
      platform.files.remove(`${this.settings.xenDirectory}/${name}`);
    }
    await this.xenstore.write(helperHome, version);
    await this.xenstore.setPermissions(helperHome, [{ domid: 0, access: "none" }]);
    await this.#removeStale();
    await this.#takeBack();
    const look = () => {
      this.#rescan = this.#rescan.then(() => this.#scan()).catch(this.lost);
    };
    await this.xenstore.watch("@introduceDomain", look, this.lost);
    await this.xenstore.watch("@releaseDomain", look, this.lost);
    await this.#rescan;
    this.log.info(
      { settings: this.settings },
      `stubdom ${version} serves state disks from ${this.settings.directory}`,
    );
  }

  /** Gives everything back. Idempotent. */
  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    await this.#rescan;
    await Promise.all([...this.#domains.keys()].map((domid) => this.#forget(domid)));
    // Without the lock they are another helper's.
    if (this.#locked) await removeIfThere(this.xenstore, helperHome);
  }

  /** The lock is kept by the open descriptor, and so until this process ends, however it does. */
  async #takeLock(): Promise<void> {
    const { clock, descriptors, files, storage } = this.#context.platform;
    const { directory } = this.settings;
    if (!files.exists(directory)) files.makeDirectory(directory);
    const fd = descriptors.open(lockPath(this.settings), { access: "write", create: true });
    for (let attempt = 1; !storage.tryLock(fd); attempt++) {
      if (attempt === lockAttempts)
        throw new HelperRunning(`another helper holds ${lockPath(this.settings)}; end that one first`);
      await new Promise<void>((resolve) => void clock.setTimer(lockInterval, resolve));
    }
    this.#locked = true;
  }

  async #removeStale(): Promise<void> {
    const alive = new Set(await this.xenstore.directory("/local/domain"));
    const known = await this.xenstore.tryDirectory(helperHome);
    for (const name of known)
      if (!alive.has(name)) await removeIfThere(this.xenstore, `${helperHome}/${name}`);
  }

  /**
   * Before anybody is served: a block device that an earlier helper gave away is nobody else's until it has been let go of.
   * By the backends: those of a domain that has died since may be there still.
   */
  async #takeBack(): Promise<void> {
    const names = await this.xenstore.tryDirectory(backends);
    const one = async (domid: number) => {
      try {
        await detachDisk(this.xenstore, domid, this.log);
      } catch (error) {
        // One domain is no reason not to serve the others; its own watch tries again.
        this.log.error({}, `domain ${domid}: state disk not detached: ${String(error)}`);
      }
    };
    await Promise.all(names.map((name) => one(Number(name))));
  }

  async #scan(): Promise<void> {
    if (this.#stopping) return;
    const names = await this.xenstore.directory("/local/domain");
    const present = new Set(names.map(Number).filter((domid) => Number.isInteger(domid) && domid > 0));
    for (const domid of [...this.#domains.keys()]) if (!present.has(domid)) void this.#forget(domid);
    for (const domid of present) if (!this.#domains.has(domid)) await this.#meet(domid);
  }

  /**
   * Waits, for as long as the domain lives, until the toolstack names a target for it. It does so after the
   * domain was announced, and only dom0 can write that node: a watch on it costs nothing.
   */
  async #meet(domid: number): Promise<void> {
    const domain: Known = { stop: () => {} };
    this.#domains.set(domid, domain);
    const node = `/local/domain/${domid}/target`;
    const fault = (error: unknown) => this.log.error({}, `domain ${domid}: ${String(error)}`);
    const look = async () => {
      const text = await this.xenstore.tryReadText(node);
      if (text === undefined || !/^\d{1,5}$/.test(text) || domain.client !== undefined) return;
      const target = Number(text);
      if (!(await serves(this.xenstore, domid, target))) return;
      // Meanwhile it may have gone, or this helper been stopped, or another event been quicker.
      if (this.#domains.get(domid) !== domain || domain.client !== undefined) return;
      // All of them before the first wait: the domain may go meanwhile, and what is known then is stopped.
      const qemu = new BackendQemu(this.#context, domid);
      domain.client = new ClientWatch(this.#context, domid, target);
      domain.screen = new ScreenWatch(this.#context, domid, qemu);
      domain.drives = new BackendCdDrives(
        this.#context,
        domid,
        new QmpCdBackend(this.#context.platform, qemu),
      );
      domain.devices = new PciList(this.xenstore, this.log, domid, target);
      domain.keyboards = new UnservedKeyboards(this.xenstore, this.log, target);
      domain.stop();
      // The others are no reason to go without saving.
      for (const other of [domain.keyboards, domain.screen, domain.drives, domain.devices])
        await other.start().catch(fault);
      await domain.client.start();
      this.log.info({}, `domain ${domid}: stub domain of domain ${target}`);
    };
    const watch = await this.xenstore.watch(node, () => void look().catch(fault));
    domain.stop = () => void watch.stop().catch(() => {});
  }

  async #forget(domid: number): Promise<void> {
    const domain = this.#domains.get(domid);
    this.#domains.delete(domid);
    if (domain === undefined) return;
    domain.stop();
    domain.screen?.stop();
    domain.devices?.stop();
    domain.keyboards?.stop();
    try {
      await Promise.all([domain.client?.stop(), domain.drives?.stop()]);
    } catch (error) {
      this.log.error({}, `domain ${domid}: ${String(error)}`);
    }
  }
}
