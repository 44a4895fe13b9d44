/**
 * The MiniOS stub domain on a host that has nothing of qemu-xen-traditional but libxl, which is what distributions ship.
 * Beside MiniOS itself the guest then needs an hvmloader with ROMBIOS, since libxl lets that QEMU have no other BIOS, and
 * dom0 a program that libxl calls with the old QEMU's words to serve the stub domain's consoles: dom0/qemu-dm. All of it
 * is named in the guest's configuration, so that nothing of the host's own Xen is touched.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { LabError } from "../lab/errors.ts";
import type { XenHost } from "../lab/xen-host.ts";
import type { XlValue } from "../lab/xl-config.ts";

/** What the user has given. */
export interface Minios {
  /** `ioemu-stubdom.gz`. */
  readonly image: Uint8Array;
  /** An hvmloader with ROMBIOS; without it the host's own. */
  readonly hvmloader?: Uint8Array;
}

const IMAGE = "/root/stubdom-bench-minios.gz";
const HVMLOADER = "/root/stubdom-bench-hvmloader";
const QEMU_DM = "/root/stubdom-bench-qemu-dm";

/** Words that every ROMBIOS says and so holds. */
const ROMBIOS = "Bochs BIOS";
/** Status 1: hvmloaders were found, and none of them holds it. */
const HAS_ROMBIOS = `none=1
for file in /usr/lib/xen*/boot/hvmloader /usr/libexec/xen*/boot/hvmloader /usr/local/lib/xen*/boot/hvmloader; do
  [ -e "$file" ] || continue
  grep -qa '${ROMBIOS}' "$file" && exit 0
  none=0
done
[ $none = 1 ]`;

/** Without it the guest gets nothing from dom0: see dom0/checksums.py. Packets of other machines are whole. */
export async function wholeChecksums(host: XenHost, stubdom: number): Promise<void> {
  const script = "/root/stubdom-bench-checksums.py";
  await host.push(readFileSync(join(import.meta.dirname, "dom0/checksums.py")), script);
  await host.run(["python3", script, `vif${stubdom}.0`]);
}

const installed = new WeakMap<XenHost, Promise<Record<string, XlValue>>>();

/** Copies it into dom0, once a host, and gives what a guest's configuration then needs. */
export function installMinios(host: XenHost, minios: Minios): Promise<Record<string, XlValue>> {
  const before = installed.get(host);
  if (before !== undefined) return before;
  const copied = copy(host, minios);
  installed.set(host, copied);
  return copied;
}

async function copy(host: XenHost, { image, hvmloader }: Minios): Promise<Record<string, XlValue>> {
  if (hvmloader === undefined) {
    const { status } = await host.run(HAS_ROMBIOS, { accept: [0, 1] });
    if (status === 1)
      throw new LabError(
        "dom0's hvmloader has no ROMBIOS, without which libxl starts no qemu-xen-traditional: --minios-hvmloader FILE gives another",
      );
  } else await host.push(hvmloader, HVMLOADER);
  await host.push(image, IMAGE);
  await host.push(readFileSync(join(import.meta.dirname, "dom0/qemu-dm")), QEMU_DM);
  await host.run(["chmod", "755", QEMU_DM]);
  return {
    device_model_version: "qemu-xen-traditional",
    device_model_stubdomain_override: true,
    device_model_override: QEMU_DM,
    stubdomain_kernel: IMAGE,
    ...(hvmloader !== undefined && { firmware_override: HVMLOADER }),
  };
}
