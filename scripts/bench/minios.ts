/**
 * The MiniOS stub domain on a host that has nothing of qemu-xen-traditional but libxl, which is what distributions ship.
 * Beside MiniOS itself the guest then needs an hvmloader with ROMBIOS, since libxl lets that QEMU have no other BIOS, and
 * dom0 a program that libxl calls with the old QEMU's words to serve the stub domain's consoles: dom0/qemu-dm. All of it
 * is named in the guest's configuration, so that nothing of the host's own Xen is touched.
 */

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync } from "node:zlib";
import { CreateFailure, LabError, Timeout } from "../lab/errors.ts";
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
const GZIP = Buffer.of(0x1f, 0x8b);
const ELF = Buffer.from("\x7fELF");
/** Bytes that no stub domain has. */
const TOO_LARGE = 256 << 20;

/** @throws RangeError for files that cannot be what they are given for: a host's boot, and a guest's silence, take minutes */
export function readMinios(image: string, hvmloader: string | undefined): Minios {
  const given = {
    image: readGiven("--minios", image, "the ioemu-stubdom.gz that Xen's own build makes"),
    ...(hvmloader !== undefined && {
      hvmloader: readGiven("--minios-hvmloader", hvmloader, "the hvmloader that Xen's own build makes"),
    }),
  };
  if (given.hvmloader !== undefined && !given.hvmloader.includes(ROMBIOS))
    throw new RangeError(
      `--minios-hvmloader ${hvmloader}: has no ROMBIOS ("${ROMBIOS}"); build Xen with --enable-qemu-traditional`,
    );
  return given;
}

function readGiven(option: string, file: string, right: string): Buffer {
  const wrong = (what: string): never => {
    throw new RangeError(`${option} ${file}: ${what}; give ${right}`);
  };
  const said = (error: unknown): string => (error instanceof Error ? error.message : String(error));
  const unless = <Value>(read: () => Value, what: string): Value => {
    try {
      return read();
    } catch (error) {
      return wrong(`${what} (${said(error)})`);
    }
  };
  const content = unless(() => readFileSync(file), "cannot be read");
  const packed = option === "--minios" && content.subarray(0, 2).equals(GZIP);
  const bare = packed
    ? unless(() => gunzipSync(content, { maxOutputLength: TOO_LARGE }), "is no whole gzip file")
    : content;
  return bare.subarray(0, 4).equals(ELF) ? content : wrong(packed ? "is no ELF in its gzip" : "is no ELF");
}

/** What lab/guest.ts says of one that ended, or took its time, without a sign on its serial console: measuring.ts waits for one. */
const SILENT = /no \/\\S\/ on the console|ended before \/\\S\//;

/** Whether what broke a run is that its guest never came up: another one would not either, and takes as long. */
export function neverStarted(error: unknown): boolean {
  if (error instanceof NoRombios || error instanceof CreateFailure) return true;
  if (!(error instanceof LabError)) return false;
  return (
    SILENT.test(error.message) || (error instanceof Timeout && error.message.startsWith("in dom0: xl create"))
  );
}

/** In dom0; none was given either. */
class NoRombios extends LabError {}

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
      throw new NoRombios(
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
