import { isDecimal } from "../bytes/text.ts";
import type { Operations } from "../xenstore/operations.ts";
import { BootError } from "./errors.ts";

/** Who this stub domain is and whom it serves. */
export interface Identity {
  /** S, this stub domain's own domid. */
  readonly domid: number;
  /** T, the domid of the HVM guest. */
  readonly target: number;
}

/**
 * Reads both domids; libxl has written them before it unpaused us.
 *
 * @throws BootError when this is no stub domain
 */
export async function readIdentity(store: Operations): Promise<Identity> {
  const [domid, target] = await Promise.all([store.tryReadText("domid"), store.tryReadText("target")]);
  return { domid: domidOf("domid", domid), target: domidOf("target", target) };
}

function domidOf(node: string, value: string | undefined): number {
  // 0x7ff0, DOMID_FIRST_RESERVED of xen/include/public/xen.h, is no domain any more.
  if (value !== undefined && isDecimal(value, 5) && Number(value) < 0x7ff0) return Number(value);
  throw new BootError(
    `xenstore ${node} ${value === undefined ? "does not exist" : `is ${JSON.stringify(value.slice(0, 40))}, not a domid`}`,
    "start this image as a guest's device model: device_model_stubdomain_override=1 and stubdomain_kernel= in its configuration",
  );
}
