/** Network interfaces: `device/vif/<N>`. How they are joined to QEMU's is in `net/`. */
import type { FileSystem } from "../platform/port.ts";
import { backendRemedy, type Frontend, namesIn } from "./xenbus.ts";

export class NicFrontend implements Frontend {
  readonly kind = "vif";
  readonly awaited = true;
  readonly essential = true;

  /** @param id libxl numbers a domain's NICs from 0 */
  constructor(readonly id: number) {}

  get path(): string {
    return `device/vif/${this.id}`;
  }

  get label(): string {
    return `network interface ${this.id}`;
  }

  linuxDevices(files: FileSystem): readonly string[] {
    return namesIn(files, `/sys/bus/xen/devices/vif-${this.id}/net`);
  }

  remedy(_frontendState: number | undefined, backendState: number | undefined): string {
    return backendRemedy(
      backendState,
      "xen-netback is loaded in the backend domain, its bridge exists, and the hotplug scripts run (udev or xl devd)",
    );
  }
}
