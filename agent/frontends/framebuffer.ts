/** The screen with its keyboard and pointer: `device/vfb/0` and `device/vkbd/0`, there when dom0 shows the guest's. */
import { decodeText } from "../bytes/text.ts";
import type { FileSystem } from "../platform/port.ts";
import type { Operations } from "../xenstore/operations.ts";
import { backendRemedy, type Ends, type Frontend, namesIn, parseEnds, XenbusState } from "./xenbus.ts";

/** dom0's QEMU offers both backends only when it is told to, and libxl does not tell it. */
const backendLine = 'device_model_args_pv = [ "-vga", "xenfb" ]';

function screenRemedy(backendState: number | undefined): string {
  if (backendState === XenbusState.Initialising || backendState === XenbusState.InitWait) {
    return `dom0's QEMU does not serve it: put ${backendLine} into the guest's configuration`;
  }
  return backendRemedy(backendState, "dom0's QEMU for the stub domain runs");
}

async function readEnds(store: Operations, path: string, id: number): Promise<Ends> {
  return parseEnds(path, id, await store.tryReadText(`${path}/backend`));
}

export class FramebufferFrontend implements Frontend {
  readonly kind = "vfb";
  readonly id: number;
  readonly path: string;
  readonly backend: string;
  readonly backendDomid: number;
  readonly awaited = true;
  readonly essential = false;

  private constructor(ends: Ends) {
    ({ id: this.id, path: this.path, backend: this.backend, backendDomid: this.backendDomid } = ends);
  }

  get label(): string {
    return "screen";
  }

  static async read(store: Operations, id: number): Promise<FramebufferFrontend> {
    return new FramebufferFrontend(await readEnds(store, `device/vfb/${id}`, id));
  }

  linuxDevices(files: FileSystem): readonly string[] {
    return namesIn(files, `/sys/bus/xen/devices/vfb-${this.id}/graphics`)
      .map((name) => `/dev/${name}`)
      .filter((device) => files.exists(device));
  }

  remedy(_frontendState: number | undefined, backendState: number | undefined): string {
    return screenRemedy(backendState);
  }
}

export class KeyboardFrontend implements Frontend {
  readonly kind = "vkbd";
  readonly id: number;
  readonly path: string;
  readonly backend: string;
  readonly backendDomid: number;
  readonly awaited = true;
  readonly essential = false;

  private constructor(ends: Ends) {
    ({ id: this.id, path: this.path, backend: this.backend, backendDomid: this.backendDomid } = ends);
  }

  get label(): string {
    return "keyboard and pointer";
  }

  static async read(store: Operations, id: number): Promise<KeyboardFrontend> {
    return new KeyboardFrontend(await readEnds(store, `device/vkbd/${id}`, id));
  }

  /** The event devices: xenkbd's inputs hang below no device, and name their frontend in `phys` alone. */
  linuxDevices(files: FileSystem): readonly string[] {
    const inputs = "/sys/class/input";
    return namesIn(files, inputs)
      .filter((name) => name.startsWith("input") && this.#isOurs(files, `${inputs}/${name}/phys`))
      .flatMap((name) => namesIn(files, `${inputs}/${name}`))
      .filter((name) => /^event[0-9]+$/.test(name))
      .map((name) => `/dev/input/${name}`)
      .filter((device) => files.exists(device));
  }

  remedy(_frontendState: number | undefined, backendState: number | undefined): string {
    return screenRemedy(backendState);
  }

  #isOurs(files: FileSystem, phys: string): boolean {
    return files.exists(phys) && decodeText(files.readFile(phys, 4096)).trim() === `xenbus/${this.path}`;
  }
}
