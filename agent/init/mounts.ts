import type { FileSystem, MountFlag } from "../platform/port.ts";

interface Mount {
  readonly target: string;
  readonly type: string;
  readonly flags: readonly MountFlag[];
  readonly data: string;
}

/** Every file system of the stub domain, in the order of mounting. */
export const mounts: readonly Mount[] = [
  { target: "/dev", type: "devtmpfs", flags: ["nosuid", "noexec"], data: "mode=0755" },
  { target: "/proc", type: "proc", flags: ["nosuid", "nodev", "noexec"], data: "" },
  { target: "/sys", type: "sysfs", flags: ["nosuid", "nodev", "noexec"], data: "" },
  // Sockets and FIFOs; bounded, because QEMU can write there.
  { target: "/run", type: "tmpfs", flags: ["nosuid", "nodev", "noexec"], data: "mode=0700,size=4m" },
];

export function mountAll(files: FileSystem): void {
  for (const { target, type, flags, data } of mounts) {
    if (!files.exists(target)) files.makeDirectory(target);
    files.mount(type, target, type, flags, data);
  }
}
