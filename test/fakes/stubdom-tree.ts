import type { FakeXenstored } from "./xenstored.ts";

export const stubdomId = 5;
export const targetId = 4;
export const home = `/local/domain/${stubdomId}`;

/**
 * A stub domain's part of xenstore as libxl leaves it before the domain first runs, with the same owners:
 * devices are added one by one.
 */
export class StubdomTree {
  constructor(readonly daemon: FakeXenstored) {
    daemon.set(home, "", stubdomId);
    daemon.set(`${home}/target`, String(targetId));
    daemon.permit(`${home}/target`, [
      { domid: 0, access: "none" },
      { domid: stubdomId, access: "read" },
    ]);
    this.console(0, `file:/var/log/xen/qemu-dm-guest.log`);
    this.console(1, `file:/var/lib/xen/qemu-save.${targetId}`);
    this.console(2, undefined);
  }

  /** `output` is `undefined` for the restore console of a guest that is not being restored. */
  console(id: number, output: string | undefined): void {
    const path = id === 0 ? "console" : `device/console/${id}`;
    this.#device("console", id, path, { type: "ioemu", ...(output === undefined ? {} : { output }) });
  }

  disk(
    number: number,
    vdev: string,
    { cdrom = false, mode = "w", params = "aio:/disk.img" as string | null } = {},
  ): void {
    const type = cdrom ? "cdrom" : "disk";
    this.#device("vbd", number, `device/vbd/${number}`, {
      "virtual-device": String(number),
      "device-type": type,
    });
    const nodes: Record<string, string> = { dev: vdev, mode, "device-type": type };
    if (params !== null) nodes.params = params;
    this.#backend("vbd", number, nodes);
  }

  nic(devid: number, mac: string): void {
    this.#device("vif", devid, `device/vif/${devid}`, { handle: String(devid), mac });
  }

  screen(): void {
    this.#device("vfb", 0, "device/vfb/0", {});
    this.#device("vkbd", 0, "device/vkbd/0", {});
  }

  pci(...hosts: string[]): void {
    this.#device("pci", 0, "device/pci/0", {});
    const nodes: Record<string, string> = { num_devs: String(hosts.length) };
    for (const [index, host] of hosts.entries()) {
      nodes[`dev-${index}`] = host;
      nodes[`opts-${index}`] = "msitranslate=0,power_mgmt=0,permissive=0,rdm_policy=strict";
    }
    this.#backend("pci", 0, nodes);
  }

  /** As xen-pciback does it: it has put the device of that position at an address of the stub domain. */
  exportPci(index: number, local: string): void {
    this.daemon.set(`${this.backend("pci", 0)}/vdev-${index}`, local);
    this.daemon.set(`${this.backend("pci", 0)}/state-${index}`, "3");
  }

  backend(kind: string, id: number): string {
    return `/local/domain/0/backend/${kind}/${stubdomId}/${id}`;
  }

  /** The frontend's state, as the stub domain's kernel writes it. */
  state(path: string, state: number): void {
    this.daemon.set(`${home}/${path}/state`, String(state), stubdomId);
  }

  backendState(kind: string, id: number, state: number): void {
    this.daemon.set(`${this.backend(kind, id)}/state`, String(state));
  }

  #device(kind: string, id: number, path: string, nodes: Readonly<Record<string, string>>): void {
    for (const [name, value] of Object.entries({
      backend: this.backend(kind, id),
      "backend-id": "0",
      state: "1",
      ...nodes,
    })) {
      this.daemon.set(`${home}/${path}/${name}`, value, stubdomId);
    }
    this.#backend(kind, id, { state: "1", "frontend-id": String(stubdomId) });
  }

  #backend(kind: string, id: number, nodes: Readonly<Record<string, string>>): void {
    const path = this.backend(kind, id);
    this.daemon.set(path, "");
    this.daemon.permit(path, [
      { domid: 0, access: "none" },
      { domid: stubdomId, access: "read" },
    ]);
    for (const [name, value] of Object.entries(nodes)) this.daemon.set(`${path}/${name}`, value);
  }
}
