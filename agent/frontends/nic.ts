/** Network interfaces: `device/vif/<N>`. How they are joined to QEMU's is in `net/`. */
import type { FileSystem } from "../platform/port.ts";
import type { Operations } from "../xenstore/operations.ts";
import { BadNode } from "./errors.ts";
import { backendRemedy, type Ends, type Frontend, namesIn, parseEnds, readNodes } from "./xenbus.ts";

export class NicFrontend implements Frontend {
  readonly kind = "vif";
  readonly id: number;
  readonly path: string;
  readonly backend: string;
  readonly backendDomid: number;
  readonly awaited = true;
  readonly essential = true;

  private constructor(
    ends: Ends,
    /** Six pairs of hex digits in lower case, `00:16:3e:01:02:03`. */
    readonly mac: string,
  ) {
    ({ id: this.id, path: this.path, backend: this.backend, backendDomid: this.backendDomid } = ends);
  }

  /** libxl numbers a domain's NICs from 0. */
  get devid(): number {
    return this.id;
  }

  get label(): string {
    return `network interface ${this.id} (${this.mac})`;
  }

  static async read(store: Operations, id: number): Promise<NicFrontend> {
    const path = `device/vif/${id}`;
    const { backend, mac } = await readNodes(store, path, ["backend", "mac"]);
    const ends = parseEnds(path, id, backend);
    if (mac === undefined || !/^[0-9a-f]{2}(:[0-9a-f]{2}){5}$/i.test(mac)) {
      throw new BadNode(`${path}/mac`, mac, "a MAC like 00:16:3e:01:02:03");
    }
    return new NicFrontend(ends, mac.toLowerCase());
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
