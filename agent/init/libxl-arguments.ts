import type { Operations } from "../xenstore/operations.ts";
import { BootError } from "./errors.ts";

/** One of the arguments that libxl wrote for QEMU: a node below `dm-argv`. */
export interface Argument {
  readonly name: string;
  readonly value: Uint8Array;
}

/**
 * Reads them all. libxl has written them before it unpaused us.
 *
 * @throws BootError where the guest has no /vm
 */
export async function readArguments(store: Operations, target: number): Promise<readonly Argument[]> {
  const node = `/local/domain/${target}/vm`;
  const vm = await store.tryReadText(node);
  if (vm === undefined || !/^\/vm\/[0-9a-fA-F-]+$/.test(vm)) {
    throw new BootError(
      `xenstore ${node} ${vm === undefined ? "does not exist" : `is ${JSON.stringify(vm.slice(0, 80))}`}, so there are no arguments for QEMU`,
      "create the guest again; libxl writes /vm/<uuid> for each guest",
    );
  }
  const path = `${vm}/image/dm-argv`;
  const names = await store.tryDirectory(path);
  const values = await store.readAll(names.map((name) => `${path}/${name}`));
  return values.map((value, i) => ({ name: names[i] ?? "", value }));
}
