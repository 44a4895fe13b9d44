/** The screen with its keyboard and pointer: `device/vfb/0` and `device/vkbd/0`, there when dom0 shows the guest's. */
import { decodeText } from "../bytes/text.ts";
import type { FileSystem } from "../platform/port.ts";
import { backendRemedy, type Frontend, namesIn, XenbusState } from "./xenbus.ts";

/**
 * dom0's QEMU offers both backends only when it is told to, and libxl does not tell it. Without `vnc = 1` it would
 * have no VNC server to show them: the screen is there for `sdl=` and `spice=` as well.
 */
const backendLine = 'device_model_args_pv = [ "-vga", "xenfb" ]';

function screenRemedy(backendState: number | undefined): string {
  if (backendState === XenbusState.Initialising || backendState === XenbusState.InitWait) {
    return `dom0's QEMU does not serve it: put ${backendLine} and vnc = 1 into the guest's configuration`;
  }
  return backendRemedy(backendState, "dom0's QEMU for the stub domain runs");
}

export class FramebufferFrontend implements Frontend {
  readonly kind = "vfb";
  readonly awaited = true;
  readonly essential = false;

  constructor(readonly id: number) {}

  get path(): string {
    return `device/vfb/${this.id}`;
  }

  get label(): string {
    return "screen";
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
  readonly awaited = true;
  readonly essential = false;

  constructor(readonly id: number) {}

  get path(): string {
    return `device/vkbd/${this.id}`;
  }

  get label(): string {
    return "keyboard and pointer";
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
