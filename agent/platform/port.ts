/**
 * The one interface between the agent and the operating system it runs on.
 *
 * Everything under `agent/` reaches Linux through this port alone, so that all of it runs against fakes
 * in tests and against QuickJS in the stub domain. `platform/quickjs/` implements it; nothing else may
 * import a QuickJS module.
 *
 * Conventions: descriptors are plain numbers and non-blocking unless said otherwise; times are
 * milliseconds; a failing call throws {@link SystemError}; "would block" is a result, never an error.
 */

/** A failed system call: the name of the error (`ENOENT`), the call, and what it was applied to. */
export class SystemError extends Error {
  override readonly name = "SystemError";
  constructor(
    /** Symbolic errno, e.g. `ENOENT`; `E<number>` for one without a name here. */
    readonly code: string,
    readonly call: string,
    /** Path, descriptor or other operand, for the log. */
    readonly operand: string,
  ) {
    super(`${call} ${operand}: ${code}`);
  }
}

export interface Timer {
  /** Idempotent; a cancelled timer never fires. */
  cancel(): void;
}

export interface Clock {
  /** When this program was entered, before its JavaScript was loaded; as {@link now} tells it. */
  readonly started: number;
  /** Milliseconds since the kernel booted, with fractions (CLOCK_BOOTTIME). */
  now(): number;
  /** Milliseconds of a clock of its own (CLOCK_MONOTONIC_COARSE), 10 ms behind at most, for the asking: no system call. */
  roughly(): number;
  setTimer(milliseconds: number, fire: () => void): Timer;
}

/** How to open a file; mirrors open(2). `O_CLOEXEC` is always set. */
export interface OpenOptions {
  readonly access: "read" | "write" | "read-write";
  readonly create?: boolean;
  /** With `create`: fail with EEXIST rather than open what is there. A block device without: with EBUSY if it is mounted or claimed. */
  readonly exclusive?: boolean;
  readonly truncate?: boolean;
  readonly append?: boolean;
  readonly nonBlocking?: boolean;
  /** Bypass the page cache; buffers are then the caller's affair. */
  readonly direct?: boolean;
  /** Permission bits of a created file, default 0o600. */
  readonly mode?: number;
}

export type FileKind = "file" | "directory" | "block" | "character" | "fifo" | "socket" | "symlink" | "other";

export interface FileStatus {
  readonly kind: FileKind;
  readonly size: number;
  readonly mode: number;
}

/** Descriptors and the readiness of each. */
export interface Descriptors {
  open(path: string, options: OpenOptions): number;
  close(fd: number): void;
  /** Bytes read into `into`; 0 at the end of the stream; `null` when it would block. */
  read(fd: number, into: Uint8Array): number | null;
  /** Bytes taken from `from`, possibly fewer than offered; `null` when it would block. */
  write(fd: number, from: Uint8Array): number | null;
  /** Absolute seek; block devices and files. */
  seek(fd: number, offset: number): void;
  /** fdatasync(2): returns when the device has acknowledged a flush. Blocks. */
  dataSync(fd: number): void;
  /** Size of a file or block device in bytes. */
  size(fd: number): number;
  /**
   * Calls `ready` whenever `fd` is readable, until replaced or removed with `null`. Level-triggered, one
   * handler a descriptor; must be removed before `fd` is closed.
   */
  onReadable(fd: number, ready: (() => void) | null): void;
  onWritable(fd: number, ready: (() => void) | null): void;
}

export interface FileSystem {
  /** Whole file as bytes; throws `EFBIG` when longer than `limit` bytes. */
  readFile(path: string, limit: number): Uint8Array;
  /** Replaces the contents; one write(2), as /proc and /sys want it. */
  writeFile(path: string, contents: string | Uint8Array): void;
  exists(path: string): boolean;
  /** Of a symbolic link itself, or of what it leads to. */
  status(path: string, links?: "follow"): FileStatus;
  readDirectory(path: string): string[];
  makeDirectory(path: string): void;
  makeFifo(path: string): void;
  remove(path: string): void;
  rename(from: string, to: string): void;
  readLink(path: string): string;
  symlink(target: string, path: string): void;
  /** `flags` by name as in mount(8). */
  mount(source: string, target: string, type: string, flags: readonly MountFlag[], data: string): void;
}

export type MountFlag = "nosuid" | "nodev" | "noexec" | "ro" | "remount" | "move";

export interface SpawnOptions {
  /** Program and its arguments; `argv[0]` is the path that is executed, not searched in PATH. */
  readonly argv: readonly (string | Uint8Array)[];
  readonly env: readonly string[];
  /**
   * The child's descriptors: entry n becomes the child's descriptor n; `null` is /dev/null. Every other
   * descriptor is closed in the child.
   */
  readonly descriptors: readonly (number | null)[];
  /** Run in a session of its own (setsid), so that no signal for our group reaches it. */
  readonly newSession?: boolean;
  /**
   * Keeps it from what only reaching for us and for the kernel would take: of our capabilities it has those that a device of
   * the host needs, CAP_SYS_RAWIO and CAP_SYS_ADMIN, whoever it is.
   */
  readonly confined?: boolean;
  /** Make descriptor 0 the controlling terminal of the new session (the debug shell). */
  readonly controllingTerminal?: boolean;
}

export interface ExitStatus {
  readonly pid: number;
  /** Exit code, or `null` when a signal ended it. */
  readonly code: number | null;
  readonly signal: string | null;
}

export type SignalName = "SIGCHLD" | "SIGTERM" | "SIGINT" | "SIGHUP" | "SIGUSR1" | "SIGUSR2" | "SIGPWR";

export interface Processes {
  readonly pid: number;
  /** Throws when the program cannot be executed (the errno of execve is reported, not an exit code). */
  spawn(options: SpawnOptions): number;
  /** When the program of the last `spawn` was executed, by {@link Clock.now}: as a rule it runs before `spawn` returns. */
  executedAt(): number;
  kill(pid: number, signal: "SIGTERM" | "SIGKILL" | "SIGCONT" | "SIGSTOP"): void;
  /** SCHED_BATCH: this process or kernel thread no longer interrupts whoever runs when it wakes; its share stays. */
  yieldWakeUps(pid: number): void;
  /** Reaps one ended child, any child; `null` when none is waiting. Never blocks. */
  reap(): ExitStatus | null;
  /** Blocks the default action of `signals` and delivers each through `deliver` in the event loop. */
  onSignals(signals: readonly SignalName[], deliver: (signal: SignalName) => void): void;
  /** reboot(2): ends the machine. `crash` makes Xen record shutdown reason `crash`. Does not return. */
  powerOff(how: "poweroff" | "reboot" | "crash"): void;
  /** The machine ends after so many seconds with shutdown reason `crash`, even if this process hangs in the kernel by then. */
  endWithin(seconds: number): void;
  /** Where the machine ends with reason `crash` from now on, the domain that it serves does so too (SCHEDOP_remote_shutdown). */
  crashAlong(domid: number): void;
  exit(code: number): never;
}

export interface Sockets {
  /** A connected pair of unix stream sockets. */
  socketPair(): [number, number];
  /** Listening unix stream socket; an old socket at `path` is replaced. */
  listenUnix(path: string): number;
  /** `null` when nobody is waiting. */
  accept(fd: number): number | null;
  connectUnix(path: string): number;
  /**
   * Writes to a unix stream socket like {@link Descriptors.write}, and with the first byte hands a copy of
   * `descriptor` to whoever reads it (SCM_RIGHTS); the caller's own stays open. `null` when it would block;
   * nothing has gone over then.
   */
  sendDescriptor(socket: number, bytes: Uint8Array, descriptor: number): number | null;
  /** Non-blocking pipe: [read end, write end]. */
  pipe(): [number, number];
  /** NETLINK_ROUTE socket, bound; one datagram a read or write. */
  netlinkRoute(): number;
  /** NETLINK_KOBJECT_UEVENT socket, bound to the kernel's own events; one event a read, overruns untold. */
  kernelEvents(): number;
  /** TAP device `name` (IFF_TAP | IFF_NO_PI), its queue's descriptor; `vnetHeader` adds IFF_VNET_HDR. */
  openTap(name: string, vnetHeader: boolean): number;
  /** Raw 8-bit mode, no echo, no translation, no signals. */
  terminalRaw(fd: number): void;
  /**
   * Opens a terminal for reading and writing, non-blocking, and makes it raw before its driver passes on the
   * first byte that already waits: on one processor nothing can come in between.
   */
  openTerminalRaw(path: string): number;
}

/** The server end of one vchan ring (libxenvchan); see `agent/qmp/vchan.ts` for how sessions use it. */
export interface VchanRing {
  /** Readable when the peer notified; call {@link acknowledge} before looking at the ring. */
  readonly fd: number;
  /** Takes and unmasks the pending event. */
  acknowledge(): void;
  /** `waiting` until a client has connected, `closed` once it left. */
  state(): "waiting" | "connected" | "closed";
  /** Bytes read, 0 when the ring is empty. */
  read(into: Uint8Array): number;
  /** Bytes taken, 0 when the ring is full. */
  write(from: Uint8Array): number;
  close(): void;
}

export interface Vchans {
  /**
   * Rings are offered, and this machine is ended, through Xen's devices that there are now, whatever has their names later.
   */
  holdDevices(): void;
  /** Offers a ring to domain `domid` under xenstore path `path` (ring-ref, event-channel). */
  listen(domid: number, path: string): VchanRing;
}

/**
 * What saving and restoring state needs beyond {@link Descriptors}: calls that wait for a disk run on a
 * thread of their own, in the order they were asked for, and never hold up the event loop.
 */
export interface Storage {
  /** XXH64 of `bytes`. */
  hash(bytes: Uint8Array, seed: bigint): bigint;
  /** Zeroed memory that direct I/O takes (page-aligned). */
  buffer(size: number): Uint8Array;
  /** Fills `into` from `offset` on; resolves to the bytes read, fewer only at the end of the file. */
  readAt(fd: number, into: Uint8Array, offset: number): Promise<number>;
  /** Writes all of `from`; ENOSPC at the end of a block device. `from` must not change meanwhile. */
  writeAt(fd: number, from: Uint8Array, offset: number): Promise<void>;
  /** fdatasync(2). */
  sync(fd: number): Promise<void>;
  /** tcdrain(3): the terminal's driver has passed on all that was written. */
  drain(fd: number): Promise<void>;
  /** Opens without following a symbolic link in the last component (ELOOP). */
  openNoFollow(path: string, options: OpenOptions): number;
  /** A nameless file of mode 0600 in `directory`: gone with its last user (O_TMPFILE). */
  openTemporary(directory: string): number;
  truncate(fd: number, size: number): void;
  /** Bytes that may still be written to the file system at `path`. */
  freeSpace(path: string): number;
  /** Exclusive advisory lock, kept until `fd` is closed; false when another process has it. */
  tryLock(fd: number): boolean;
  /** Puts a loop device over the file `fd`; the device goes when its last user has closed it. */
  attachLoop(fd: number, readOnly: boolean): BlockDevice;
  /** Lets a loop device take over the present size of its file. */
  resizeLoop(loopFd: number): void;
  /** `ENOTBLK` unless `fd` is a block device. */
  deviceNumber(fd: number): { readonly major: number; readonly minor: number };
  /** Bytes that a pipe or FIFO holds. */
  setPipeSize(fd: number, bytes: number): void;
}

export interface BlockDevice {
  readonly fd: number;
  readonly major: number;
  readonly minor: number;
}

/** A mode of a framebuffer device (linux/fb.h). */
export interface FramebufferMode {
  /** Pixels. */
  readonly width: number;
  readonly height: number;
  /** Bytes from one row to the next. */
  readonly stride: number;
  /** Bytes that may be written. */
  readonly size: number;
  readonly bitsPerPixel: number;
  /** Lowest bit of each colour within a pixel. */
  readonly red: number;
  readonly green: number;
  readonly blue: number;
}

/** Pixels; `x` and `y` from the top left corner. */
export interface Rectangle {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Where a screen of `source` size goes in a framebuffer: into `target`, never enlarged, nearest pixels. */
export interface PixelView {
  readonly source: { readonly width: number; readonly height: number };
  readonly target: Rectangle;
  readonly stride: number;
  readonly size: number;
}

/** `wait` until the socket is readable; `end` of the stream; `more` has come: call again, others first. */
export type PixelProgress = "done" | "wait" | "end" | "more";

/**
 * A socket that brings messages with pixels among them; it alone reads the socket, through a buffer. The
 * sender is not trusted: no rectangle reaches memory outside of the view.
 */
export interface PixelSource {
  /** Fills `into` whole (`done`), or takes nothing. */
  take(into: Uint8Array): PixelProgress;
  /** The next `width * height` pixels of 4 bytes, row by row, are those of `rectangle`. Throws `EINVAL`. */
  begin(framebuffer: number, view: PixelView, rectangle: Rectangle): void;
  /** Draws what has come of the rectangle; what lies outside of the view's source is dropped. */
  draw(): PixelProgress;
  /** Makes the first `size` bytes of the framebuffer black. */
  clear(framebuffer: number, size: number): void;
  /** Frees the buffers; the socket stays open. Idempotent. */
  close(): void;
}

export interface Framebuffers {
  mode(fd: number): FramebufferMode;
  /** Throws `EINVAL` when the driver cannot. Stride and size stay as they are. */
  setMode(fd: number, width: number, height: number): void;
  pixelSource(socket: number): PixelSource;
}

export interface Platform {
  readonly clock: Clock;
  readonly descriptors: Descriptors;
  readonly files: FileSystem;
  readonly processes: Processes;
  readonly sockets: Sockets;
  readonly vchans: Vchans;
  readonly storage: Storage;
  readonly framebuffers: Framebuffers;
}
