import { type Logger, silentLogger } from "../log/logger.ts";
import type { ExitStatus, Platform, SignalName } from "../platform/port.ts";
import { SocketStream } from "../platform/stream.ts";
import { QmpClient } from "../qmp/client.ts";
import { isJsonObject, type JsonValue } from "../qmp/json.ts";
import { guestUuid } from "../savestate/context.ts";
import { TransferError } from "../savestate/errors.ts";
import { connectPatiently } from "./connect.ts";
import { defaultSettings, savePath } from "./settings.ts";
import { readStateFile, writeStateFile } from "./state-file.ts";
import { connectXenstore, findDomain } from "./xenstore.ts";

const greetingDeadline = 10_000;
const flushDeadline = 120_000;
const saveDeadline = 600_000;

export interface SavedGuest {
  readonly domid: number;
  readonly file: string;
  /** Bytes of QEMU's state. */
  readonly bytes: number;
}

/**
 * Saves the state of a guest's device model alone, into a state file: the guest is paused meanwhile and goes
 * on afterwards, whatever happens, and also when the command is told to end. What QEMU runs in, a stub domain
 * or dom0, makes no difference.
 *
 * @param xenDirectory where the device model's state arrives, see `HelperSettings`
 * @throws TransferError, QmpError, RangeError (no such guest), ListenerBusy, SystemError; there is no new file then
 */
export async function saveGuest(
  platform: Platform,
  guest: string,
  file: string,
  xenDirectory = defaultSettings.xenDirectory,
): Promise<SavedGuest> {
  const xenstore = await connectXenstore(platform);
  try {
    const domid = await findDomain(xenstore, guest);
    const uuid = await guestUuid(xenstore, domid);
    const toolstack = new Toolstack(platform);
    await toolstack.xl("pause", String(domid));
    try {
      const raw = savePath({ ...defaultSettings, xenDirectory }, domid);
      const bytes = await saveDevices(platform, silentLogger, { domid, uuid, file, raw }, toolstack);
      return { domid, file, bytes };
    } finally {
      await toolstack.xl("unpause", String(domid));
    }
  } finally {
    xenstore.close();
  }
}

interface SaveJob {
  readonly domid: number;
  readonly uuid: string;
  readonly file: string;
  /** Where the device model's state arrives. */
  readonly raw: string;
}

async function saveDevices(
  platform: Platform,
  log: Logger,
  { domid, uuid, file, raw }: SaveJob,
  toolstack: Toolstack,
): Promise<number> {
  const socket = `/run/xen/qmp-libxl-${domid}`;
  const stream = new SocketStream(platform, await connectPatiently(platform, socket), socket);
  const qmp = new QmpClient(stream, { clock: platform.clock, log });
  // What lies there before we have asked for it is libxl's.
  let asked = false;
  try {
    await qmp.handshake(greetingDeadline);
    const qemuVersion = versionText(await qmp.execute("query-version"));
    try {
      // Waits for what is under way on the guest's disks, and flushes them.
      await qmp.execute("stop", {}, flushDeadline);
      toolstack.throwIfInterrupted();
      asked = true;
      await qmp.execute("xen-save-devices-state", { filename: raw, live: false }, saveDeadline);
    } finally {
      // Also where `stop` did not answer: QEMU may do it yet. Where this does not arrive, `xl unpause` sends it over a connection
      // of its own, and lets the guest's processors run only with QEMU's answer (libxl__domain_unpause); its exit status is 0 anyway.
      await qmp.execute("cont", {}, flushDeadline).catch((error: unknown) => {
        const reason = error instanceof Error ? error.message : String(error);
        const remedy = `where \`xl list\` shows domain ${domid} as paused, repeat: xl unpause ${domid}`;
        throw new TransferError(
          `QEMU has not answered "cont" (${reason}), xl unpause sends it again; ${remedy}`,
        );
      });
    }
    toolstack.throwIfInterrupted();
    return await writeStateFile(platform, file, { uuid, qemuVersion }, async (writer) => {
      const report = await readStateFile(platform, raw, (part) => writer.append(part));
      if (report.whole === false) throw new TransferError(report.fault ?? "the state is not whole");
    });
  } finally {
    qmp.close();
    if (asked && platform.files.exists(raw)) platform.files.remove(raw);
  }
}

function versionText(answer: JsonValue): string {
  if (!isJsonObject(answer) || !isJsonObject(answer.qemu)) return "";
  const { major, minor, micro } = answer.qemu;
  return [major, minor, micro].map((part) => (typeof part === "number" ? part : "?")).join(".");
}

/**
 * Runs `xl`, wherever the distribution put it, one command at a time. A signal that is to end this process is
 * only noted: a guest that has been stopped must be made to go on first.
 */
class Toolstack {
  readonly #program: string;
  #interruption: SignalName | undefined;
  #ended: (status: ExitStatus) => void = () => {};

  constructor(private readonly platform: Platform) {
    const program = ["/usr/sbin/xl", "/sbin/xl", "/usr/bin/xl"].find((path) => platform.files.exists(path));
    if (program === undefined)
      throw new TransferError("no xl in dom0: this command pauses the guest with it");
    this.#program = program;
    platform.processes.onSignals(["SIGCHLD", "SIGINT", "SIGTERM", "SIGHUP"], (signal) => {
      if (signal !== "SIGCHLD") this.#interruption = signal;
      for (let status = platform.processes.reap(); status !== null; status = platform.processes.reap()) {
        this.#ended(status);
      }
    });
  }

  /** @throws TransferError */
  throwIfInterrupted(): void {
    if (this.#interruption !== undefined) throw new TransferError(`given up at ${this.#interruption}`);
  }

  async xl(...args: readonly string[]): Promise<void> {
    const ended = new Promise<ExitStatus>((resolve) => {
      this.#ended = resolve;
    });
    this.platform.processes.spawn({
      argv: [this.#program, ...args],
      env: ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
      descriptors: [null, 1, 2],
      newSession: true, // a terminal's signals would end it in the middle
    });
    const { code, signal } = await ended;
    if (code !== 0) throw new TransferError(`xl ${args.join(" ")}: exit status ${code ?? signal}`);
  }
}
