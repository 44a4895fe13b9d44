/**
 * What a QEMU that runs is served with: its devices that dom0 changes, the toolstack's commands, the guest's
 * screen. Loaded when QEMU has been started, since it would only keep it waiting before.
 */
import type { Config } from "../config/fields.ts";
import type { Frontends } from "../frontends/discover.ts";
import type { Joint } from "../frontends/net/joint.ts";
import { CdDrives } from "../hotplug/cd-drives.ts";
import { DiskErrors } from "../hotplug/disk-errors.ts";
import { NicLinks } from "../hotplug/nic-links.ts";
import type { Log } from "../log/log.ts";
import type { Passthrough } from "../passthrough/passthrough.ts";
import type { Platform } from "../platform/port.ts";
import { DescriptorStream } from "../platform/stream.ts";
import type { DmArguments } from "../qemu/dm-argv.ts";
import { driveFiles } from "../qemu/drives.ts";
import { unavailable } from "../qemu/models.ts";
import type { QmpClient, QmpEvent } from "../qmp/client.ts";
import type { CommandGate } from "../qmp/proxy.ts";
import { toolstackSession } from "../qmp/toolstack.ts";
import type { VchanServer } from "../qmp/vchan.ts";
import { CirrusKeeper } from "../savestate/cirrus.ts";
import type { StateContext } from "../savestate/context.ts";
import { StateSaver } from "../savestate/save.ts";
import type { Screen } from "../screen/screen.ts";
import type { XenstoreClient } from "../xenstore/client.ts";
import { toolstackSocket } from "./launch.ts";
import { calmConsoles } from "./limits.ts";
import { serveSessions } from "./sessions.ts";

export interface ServingContext {
  readonly platform: Platform;
  readonly store: XenstoreClient;
  readonly log: Log;
  readonly config: Config;
  readonly dm: DmArguments;
  readonly state: StateContext;
  readonly found: Frontends;
  /** In the order of QEMU's NICs. */
  readonly joints: readonly Joint[];
  readonly passthrough: Passthrough;
  readonly qmp: QmpClient;
  /** Something is late or cut, but not lost. */
  warn(text: string): void;
  /** It has come after all. */
  withdraw(text: string): void;
  /** Something is lost for good, and yet the guest can go on. */
  complain(text: string): void;
  /** Called when a session begins. */
  busy(): void;
}

export class Serving {
  readonly #diskErrors: DiskErrors;
  readonly #nics: NicLinks;
  /** What follows devices that come and go. */
  readonly #followers: readonly { follow(): Promise<void>; stop(): void }[];
  #screen: Screen | undefined;
  #toolstack: VchanServer | undefined;
  #stopped = false;

  constructor(private readonly context: ServingContext) {
    const { platform, store, log, config, dm, state, found, joints, qmp } = context;
    const complain = (text: string) => context.complain(text);
    const files = driveFiles(dm.options);
    this.#diskErrors = new DiskErrors({
      clock: platform.clock,
      log,
      nameOf: (device) => this.#driveName(device, files.get(device)),
      complain,
    });
    const cds = found.disks.filter(({ cdrom }) => cdrom);
    const nics = joints.map((joint, i) => ({ joint, netdev: dm.nics[i]?.netdev ?? "" }));
    this.#nics = new NicLinks({ store, qmp, log, target: state.target, nics, complain });
    this.#followers = [
      new CdDrives({
        ...{ platform, store, qmp, log, complain },
        warn: (text) => context.warn(text),
        withdraw: (text) => context.withdraw(text),
        notice: config.lateNotice,
        deadline: config.frontendDeadline,
        started: cds.map(({ id }) => id),
      }),
      this.#nics,
    ];
  }

  /** For people, while there is one. */
  get screen(): Pick<Screen, "summary" | "counters"> | undefined {
    return this.#screen;
  }

  /** An event of QEMU's. */
  happened({ name, data }: QmpEvent): void {
    if (name === "BLOCK_IO_ERROR" && !this.#stopped) this.#diskErrors.happened(data);
  }

  /** To be called once, when QEMU takes commands; resolves when the toolstack's are taken at `path`. */
  async begin(path: string): Promise<void> {
    // The toolstack changes a CD in a session of its own: it must not come first.
    await this.#followDevices();
    if (this.#stopped) return;
    this.#serveToolstack(path);
    await this.#showScreen();
    void this.#tellOfDisks();
    const { platform, log, dm } = this.context;
    const problem = dm.serials.length > 0 ? calmConsoles(platform) : undefined;
    if (problem !== undefined) log.warn({}, problem);
  }

  /**
   * Idempotent. Resolves when the toolstack has been let go: libxl waits without end for the answer of a stub
   * domain that has crashed, but not for that of one that has hung up.
   */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#screen?.stop();
    this.#diskErrors.stop();
    for (const follower of this.#followers) follower.stop();
    await this.#toolstack?.stop();
  }

  /** Devices that dom0 changes under the running guest. */
  async #followDevices(): Promise<void> {
    try {
      await Promise.all(this.#followers.map((follower) => follower.follow()));
    } catch (error) {
      this.context.complain(
        `changes of CDs and NICs are not noticed: ${String(error)}; shut the guest down and start it again before you change one`,
      );
    }
  }

  #serveToolstack(path: string): void {
    const { platform, log, dm, state, passthrough, qmp } = this.context;
    const hasCirrus = dm.options.some(({ value }) => value.includes("cirrus"));
    const keepers = [passthrough, this.#nics, ...(hasCirrus ? [new CirrusKeeper(qmp)] : [])];
    const saver = new StateSaver(state, qmp, {
      keepers,
      complain: (text) => this.context.complain(text),
      withdraw: (text) => this.context.withdraw(text),
    });
    const takeOver = new Map([["xen-save-devices-state", saver.handler]]);
    const gates = new Map([["device_add", this.#beforeDeviceAdd]]);
    const connect = () => {
      this.context.busy();
      const fd = platform.sockets.connectUnix(toolstackSocket);
      return new DescriptorStream(platform.descriptors, fd, toolstackSocket);
    };
    const onCut = (problem: string) => this.context.warn(problem);
    this.#toolstack = serveSessions(this.context, "QMP", path, (client) =>
      toolstackSession(client, { log, connect, takeOver, gates, onCut }),
    );
  }

  /** What dom0 adds to a guest that runs, and its PCI devices at the start as well. */
  readonly #beforeDeviceAdd: CommandGate = async (args) => {
    const why = typeof args.driver === "string" ? unavailable([args.driver]) : undefined;
    if (why === undefined) return this.context.passthrough.beforeDeviceAdd(args);
    const text = `device_add ${args.driver}: ${why.problem}; ${why.remedy}`;
    this.context.complain(text);
    throw new Error(text);
  };

  /** The guest runs without; so nothing waits for it, and dom0 may offer it late. */
  async #showScreen(): Promise<void> {
    const { platform, store, log, found } = this.context;
    const { framebuffers, keyboards } = found;
    const [framebuffer] = framebuffers;
    if (framebuffer === undefined) return;
    const { Screen } = await import("../screen/screen.ts");
    if (!this.#stopped) this.#screen = new Screen({ platform, store, log, framebuffer, keyboards });
  }

  /**
   * libxl starts a QEMU in dom0 for the stub domain's disks and none for the guest's own: one with PV drivers, which has the
   * emulated disk unplugged, waits for its backend in vain.
   */
  async #tellOfDisks(): Promise<void> {
    const { store, found, log } = this.context;
    try {
      for (const { cdrom, label, path } of found.disks) {
        if (cdrom) continue;
        const backend = await store.background.tryReadText(`${path}/backend`);
        if (backend?.includes("/backend/qdisk/"))
          log.info(
            {},
            `${label} is served by dom0's QEMU, which does not serve a guest's PV drivers: let the guest keep the emulated disk (xen_emul_unplug=never for its Linux, or xen_platform_pci=0 here), or make it format=raw, backendtype=phy`,
          );
      }
    } catch (error) {
      log.debug({}, `disks: ${String(error)}`);
    }
  }

  /** For people; `device` is a word of QEMU's. `undefined` for none of the disks that libxl gave us. */
  #driveName(device: string, file: string | undefined): string | undefined {
    const number = /^ide-([0-9]+)$/.exec(device)?.[1];
    const disk = this.context.found.disks.find((each) => each.device === file || String(each.id) === number);
    return disk && `${disk.label} (${device})`;
  }
}
