/** Who emulates the guest's devices. Everything else is the same for all of them. */

export const VARIANTS = {
  dom0: {
    what: "QEMU in dom0, the distribution's",
    differs:
      "QEMU is the distribution's full build; its disks go to the image files in dom0 directly, its NIC to the bridge by a TAP device",
  },
  "linux-stubdom": {
    what: "QEMU in our stub domain",
    differs: "our kernel, our build of the same QEMU version; disks and NIC go through PV devices to dom0",
  },
  "shell-stubdom": {
    what: "the same kernel and QEMU, a shell script for process 1",
    differs:
      "no agent: QEMU unsupervised, its clock by system calls, its NIC on a bridge in the stub domain; 128 MiB, which busybox and Xen's tools need; these are in its image, not compressed",
  },
  minios: {
    what: "the MiniOS stub domain (qemu-xen-traditional)",
    differs:
      "another operating system in one address space and a QEMU of 2009: other device models behind the same names, ROMBIOS instead of SeaBIOS; no AHCI, so that all variants use IDE when it takes part; dom0 sends it whole checksums, without which its guest drops what comes",
  },
  // A joint and a disk at a time: the one does not touch the other's figures, and a boot takes minutes.
  "bridge+io_uring": ours("stubdom.net_joint=bridge stubdom.disk_aio=io_uring"),
  "macvtap+persistent": ours("stubdom.net_joint=macvtap xen_blkfront.feature_persistent=1"),
  // More of it needs more memory than a stub domain has: half a gigabyte with 16 pages and 256 segments.
  rings: ours("xen_blkfront.max_ring_page_order=2 xen_blkfront.max_indirect_segments=64"),
} as const;

/** Ours, with something else on the stub domain's command line than what we chose. */
function ours<const Words extends string>(words: Words) {
  return { what: `ours, ${words}`, differs: `our stub domain with ${words}`, words };
}

/** What --choices measures beside `linux-stubdom`: whether our own settings are the best ones. */
export const CHOICES = ["bridge+io_uring", "macvtap+persistent", "rings"] as const;

export type VariantName = keyof typeof VARIANTS;

export const VARIANT_NAMES = Object.keys(VARIANTS) as VariantName[];

/** The one that all others are compared with. */
export const REFERENCE: VariantName = "dom0";

/** Which variants each round measures in which order: every one once, each round beginning with another. */
export function interleaved(variants: readonly VariantName[], rounds: number): VariantName[][] {
  return Array.from({ length: rounds }, (_, round) =>
    variants.map((_, place) => variants[(place + round) % variants.length] ?? REFERENCE),
  );
}
