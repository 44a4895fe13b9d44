import { decodeText } from "../bytes/text.ts";
import type { Config } from "../config/fields.ts";
import { allFrontends, type Frontends } from "../frontends/discover.ts";
import { type FrontendOutcome, waitForFrontends } from "../frontends/wait.ts";
import type { Frontend } from "../frontends/xenbus.ts";
import type { Log } from "../log/log.ts";
import { silentLogger } from "../log/logger.ts";
import type { Passthrough } from "../passthrough/passthrough.ts";
import { type Platform, type SignalName, SystemError } from "../platform/port.ts";
import type { DmArguments } from "../qemu/dm-argv.ts";
import type { QemuEnded } from "../qemu/errors.ts";
import type { QemuProcess } from "../qemu/spawn.ts";
import type { QemuSupervisor } from "../qemu/supervisor.ts";
import type { QmpEvent } from "../qmp/client.ts";
import { isJsonObject, type JsonObject } from "../qmp/json.ts";
import type { StateContext } from "../savestate/context.ts";
import { version } from "../version.ts";
import { XenstoreClient } from "../xenstore/client.ts";
import { ProtocolError } from "../xenstore/errors.ts";
import { Children } from "./children.ts";
import type { Question } from "./control-protocol.ts";
import { BootError } from "./errors.ts";
import type { FirstQuestions } from "./first-questions.ts";
import type { Identity } from "./identity.ts";
import { applySettings, screenSettings } from "./limits.ts";
import { MemoryWatch, memoryAdvice, peakResident } from "./memory.ts";
import { neededFrontends, unemulatedDisks, unemulatedSerials } from "./needed.ts";
import { Phases } from "./phases.ts";
import { DomainReport } from "./report.ts";
import type { Serving, ServingContext } from "./serving.ts";
import type { DeviceStatus, StubdomStatus } from "./status.ts";

/** How long the last words to xenstore may take before the machine ends without them, in milliseconds. */
const lastWords = 1000;
/** A QEMU that cannot even be killed is left to the hypervisor. */
const qemuPatience = 1000;
/**
 * Within which the machine ends in any case, in seconds: longer than what is waited for above, and, where nothing is wrong, for
 * what a slow disk has yet to be given.
 */
const endsWithin = { failed: 10, well: 60 };
/** QEMU sends events as often as it likes: memory is looked at no more often than this, in milliseconds. */
const memoryPause = 1000;
/** Where a stub domain that does not know its target says why: beside the errors of Linux's PV drivers. */
const homeless = "error/stubdom";
/** Of what was told so much is kept, for when what came later has passed. */
const mostTold = 8;
/** While the guest runs, a xenstored that is restarted or stuck for a while is no reason to end it. */
const runningStoreDeadline = 60_000;

const noFrontends: Frontends = {
  disks: [],
  nics: [],
  framebuffers: [],
  keyboards: [],
  pci: [],
  consoles: [],
};

/**
 * The stub domain, from the first word to xenstore to the end of the machine. Its boot is the sequence of
 * {@link phaseNames}; whatever goes wrong, then or later, ends in {@link fail}, once.
 */
export class Stubdom {
  readonly #phases: Phases;
  readonly #children: Children;
  readonly #memory: MemoryWatch;
  #store: XenstoreClient | undefined;
  #storeLost = false;
  #report: DomainReport | undefined;
  #identity: Identity | undefined;
  #arguments: DmArguments | undefined;
  #commandLine: readonly Uint8Array[] = [];
  #found: Frontends = noFrontends;
  readonly #outcomes = new Map<Frontend, FrontendOutcome>();
  #passthrough: Passthrough | undefined;
  #qemu: QemuSupervisor | undefined;
  #serving: Serving | undefined;
  /** What is the matter, the oldest first; the last is what dom0 is shown. */
  readonly #told: { readonly text: string; readonly lasting: boolean }[] = [];
  #ending = false;
  /** When memory was looked at last. */
  #looked = Number.NEGATIVE_INFINITY;

  constructor(
    private readonly platform: Platform,
    private readonly log: Log,
  ) {
    this.#phases = new Phases(platform.clock, (time) => {
      // A boot that has failed may have its next phase under way.
      if (!this.#ending) this.#report?.phase(time);
    });
    this.#children = new Children(platform.processes);
    this.#memory = new MemoryWatch(platform.files, ({ total, available }, least) => {
      log.info({}, `memory: low-water mark ${least} KiB available of ${total} KiB`);
      this.#report?.write("memory", `${available} of ${total}, least ${least}`);
    });
    this.#phases.enter("init", platform.clock.started);
  }

  /** Resolves when the device model runs and serves the toolstack. Rejects with what {@link fail} is for. */
  async boot(questions: Promise<FirstQuestions>): Promise<void> {
    const { platform, log } = this;
    const { asked, reading, announced, ...answers } = await questions;
    this.#phases.enter("xenstore", asked);
    const onLost = (error: Error) => {
      this.#storeLost = true;
      void this.fail(error);
    };
    const store = XenstoreClient.connect(platform, { log, onLost });
    this.#store = store;
    const [identity] = await Promise.all([answers.identity, announced]);
    const home = `/local/domain/${identity.domid}/device-model/${identity.target}`;
    this.#identity = identity;
    this.#report = new DomainReport(store.background, `${home}/agent`, log, homeless);
    this.#report.hold();
    this.#report.open(identity.domid, version);
    for (const time of this.#phases.times) this.#report.phase(time);
    log.info({}, `stubdom ${version}: domain ${identity.domid} serves domain ${identity.target}`);

    this.#phases.enter("configuration");
    platform.processes.onSignals(["SIGCHLD", "SIGTERM", "SIGINT", "SIGUSR1", "SIGUSR2"], (signal) =>
      this.#signalled(signal),
    );
    this.#found = await answers.devices;

    this.#phases.enter("frontends");
    // What the backends take is time for all that needs none of them, once they are listened to.
    const reader = import("./configuration.ts");
    const dmArguments = Promise.all([reader, answers.arguments]).then(([{ dmArgumentsFrom }, given]) =>
      dmArgumentsFrom(given, identity.target),
    );
    const configuring = reader.then(async ({ loadConfig }) =>
      this.#configure(await loadConfig(platform.files, log), store, `${home}/agent/shell`),
    );
    const preparing = this.#prepareLaunch(dmArguments, configuring);
    const connecting = this.#connectFrontends(store, dmArguments, configuring, preparing);
    const [{ launch, dm, config, prepared }, missed] = await Promise.all([preparing, connecting]);
    // As long as there was something else to do, nothing was waited for.
    const idle = Math.max(0, platform.clock.now() - prepared);
    this.#report.time("waited", Math.min(missed, idle));
    // libxl adds devices when QEMU runs; these are named in device_model_args_hvm.
    if (dm.passthrough.length > 0) {
      this.#report.release();
      const passthrough = await this.#passedThrough(store, config);
      await Promise.all(dm.passthrough.map((host) => passthrough.answers(host)));
    }

    this.#phases.enter("network");
    const joints = await launch.joinNetworks();

    this.#phases.enter("qemu-start");
    this.#memory.look();
    const state: StateContext = { platform, xenstore: store, log, ...identity };
    if (dm.restoring) this.#report.release();
    const incoming = dm.restoring
      ? await (await import("../savestate/restore.ts")).openIncoming(state)
      : undefined;
    const screen = this.#hasScreen;
    if (screen) for (const refusal of applySettings(platform.files, screenSettings)) log.warn({}, refusal);
    const child = launch.launchQemu(joints, incoming);
    this.#commandLine = launch.argv;
    reading.close();
    const qemu = await this.#supervise(child);

    this.#phases.enter("qemu-answers", child.began);
    this.#report.write("qemu/pid", child.pid);
    this.#report.release();
    log.info({ pid: child.pid }, `QEMU started with ${this.#commandLine.length} arguments`);
    void log.flush();
    // A state that turns out to be wrong ends everything: the guest must not run on a part of it.
    incoming?.feed(() => qemu.endedSoon()).catch((error: unknown) => this.fail(error));
    const ready = qemu.ready(config.qemuDeadline, config.lateNotice, () =>
      this.#warn(
        `QEMU has not answered on QMP for ${config.lateNotice / 1000} s; it is given ${config.qemuDeadline / 1000} s; see its lines above, or raise stubdom.qemu_deadline`,
      ),
    );
    const loading = this.#loadServing({ store, config, dm, state, joints, qmp: qemu.qmp });
    const [serving] = await Promise.all([loading, ready]);
    this.#phases.enter("running");
    store.deadline = runningStoreDeadline;
    if (config.crashGuest) platform.processes.crashAlong(identity.target);
    // What was late has come.
    for (const { text, lasting } of [...this.#told]) if (!lasting) this.#withdraw(text);
    await serving.begin(`${home}/qmp-vchan`);
    const memory = Number(dm.options.find(({ name }) => name === "m")?.value);
    const advice = memoryAdvice(memory, this.#memory.look(), screen);
    if (advice !== undefined) log.warn({}, advice);
    const [first, last] = [this.#phases.times[0], this.#phases.times.at(-1)];
    log.info(
      {
        phases: Object.fromEntries(this.#phases.times.map(({ phase, began }) => [phase, Math.round(began)])),
      },
      `running, ${((last?.began ?? 0) - (first?.began ?? 0)).toFixed(0)} ms after the agent began`,
    );
  }

  /**
   * The stub domain cannot go on: says why in the log and in xenstore, and ends the machine with reason
   * `crash`. Only the first failure counts.
   */
  async fail(error: unknown): Promise<void> {
    if (this.#ending) return;
    this.#end(endsWithin.failed);
    const text = tellingRemedy(error);
    this.#told.push({ text, lasting: true });
    this.log.error({}, text);
    const report = this.#lastReport();
    report?.write("error", text);
    report?.write("phase", "failed");
    // What was still held has gone with the other connection.
    if (report !== this.#report)
      for (const { phase, began } of this.#phases.times) report?.time(`phases/${phase}`, began);
    this.#report = report;
    await this.#stopQemu();
    await this.#powerOff("crash");
  }

  /** Over a connection of its own where the one that there was is lost: xenstored may be well all the same. */
  #lastReport(): DomainReport | undefined {
    const path = this.#report?.path ?? homeless;
    if (this.#store !== undefined && !this.#storeLost)
      return this.#report ?? new DomainReport(this.#store, path, this.log);
    try {
      const store = XenstoreClient.connect(this.platform, { deadline: lastWords });
      const report = new DomainReport(store, path, silentLogger, homeless);
      if (this.#identity !== undefined) report.open(this.#identity.domid, version);
      return report;
    } catch {
      return undefined; // the log has what dom0 would have been told
    }
  }

  async #configure(config: Config, store: XenstoreClient, shell: string): Promise<Config> {
    const { platform, log } = this;
    log.configure({ level: config.loglevel, format: config.logformat });
    for (const refusal of applySettings(platform.files)) log.warn({}, refusal);
    if (config.shell) await this.#openShell(store, shell);
    return config;
  }

  /**
   * Waits for what QEMU needs. What is late is named while there is time to look, and given the rest of the
   * deadline: a slow dom0 is no reason to fail. A device that will not come is one, at once. Gives for how many milliseconds
   * one was not there that had been looked for.
   */
  async #connectFrontends(
    store: XenstoreClient,
    dmArguments: Promise<DmArguments>,
    configuring: Promise<Config>,
    preparing: Promise<unknown>,
  ): Promise<number> {
    const found = this.#found;
    const began = this.platform.clock.now();
    // What is refused is not worth waiting for.
    const needed = Promise.all([dmArguments, preparing]).then(([dm]) => {
      this.#arguments = dm;
      const all = neededFrontends(found, dm);
      for (const note of [...unemulatedDisks(found, dm), ...unemulatedSerials(dm)]) this.log.warn({}, note);
      return all;
    });
    const likely = [...found.disks, ...found.nics, ...found.consoles].filter(({ awaited }) => awaited);
    const patience = configuring.then((config) => Math.min(config.lateNotice, config.frontendDeadline));
    const outcomes = await waitForFrontends(store, this.platform, likely, patience, needed);
    const late = this.#take(outcomes);
    const { lateNotice, frontendDeadline: deadline } = await configuring;
    const lost = late.find((each) => !each.late || lateNotice >= deadline);
    for (const each of late) if (each !== lost) this.#warn(each.error.message);
    if (lost !== undefined) throw lost.error;
    const rest = late.map(({ frontend }) => frontend);
    const [missing] = this.#take(
      await waitForFrontends(store, this.platform, rest, deadline, Promise.resolve(rest), began),
    );
    if (missing !== undefined) throw missing.error;
    const missed =
      late.length > 0
        ? this.platform.clock.now() - began
        : Math.max(0, ...outcomes.map((each) => (each.connected ? each.waited : 0)));
    for (const device of (await dmArguments).serials) this.#holdRaw(device);
    return missed;
  }

  /** What QEMU's start needs and no device does. */
  async #prepareLaunch(dmArguments: Promise<DmArguments>, configuring: Promise<Config>) {
    const [dm, config, { prepareLaunch }] = await Promise.all([
      dmArguments,
      configuring,
      import("./launch.ts"),
    ]);
    const { platform, log } = this;
    const launch = prepareLaunch({ platform, log, dm, config, screen: this.#hasScreen });
    return { launch, dm, config, prepared: platform.clock.now() };
  }

  get #hasScreen(): boolean {
    return this.#found.framebuffers.length > 0;
  }

  /** Notes what has connected; returns what has not. */
  #take(outcomes: readonly FrontendOutcome[]): Extract<FrontendOutcome, { connected: false }>[] {
    return outcomes.filter((outcome) => {
      this.#outcomes.set(outcome.frontend, outcome);
      return !outcome.connected;
    }) as Extract<FrontendOutcome, { connected: false }>[];
  }

  /**
   * A serial port carries bytes, not lines. The terminal forgets its mode with the last descriptor, so ours
   * stays open: nothing that dom0 sends before QEMU opens it, or after, is echoed or translated.
   */
  #holdRaw(device: string): void {
    const fd = this.platform.descriptors.open(device, { access: "read-write", nonBlocking: true });
    this.platform.sockets.terminalRaw(fd);
  }

  async #passedThrough(store: XenstoreClient, config: Config): Promise<Passthrough> {
    const { Passthrough } = await import("../passthrough/passthrough.ts");
    this.#passthrough ??= new Passthrough(store, this.platform, this.log, config.pciDeadline, (text) =>
      this.#complain(text),
    );
    return this.#passthrough;
  }

  async #supervise(child: QemuProcess): Promise<QemuSupervisor> {
    const supervising = import("../qemu/supervisor.ts").then(
      ({ QemuSupervisor }) =>
        new QemuSupervisor(this.platform, this.log, child, {
          onEvent: (event) => this.#happened(event),
          onMonitorBroken: (error) => this.#complain(error.message),
        }),
    );
    // It may have ended by the time that anybody looks after it.
    this.#children.onExit(child.pid, (status) => void supervising.then((qemu) => qemu.exited(status)));
    const qemu = await supervising;
    this.#qemu = qemu;
    void qemu.ended.then((ended) => this.#qemuEnded(ended));
    return qemu;
  }

  /** What is needed once QEMU runs, loaded while it starts. */
  async #loadServing(
    given: Pick<ServingContext, "store" | "config" | "dm" | "state" | "joints" | "qmp">,
  ): Promise<Serving> {
    const [{ Serving }, passthrough] = await Promise.all([
      import("./serving.ts"),
      this.#passedThrough(given.store, given.config),
    ]);
    const { platform, log } = this;
    this.#serving = new Serving({
      ...given,
      ...{ platform, log, passthrough, found: this.#found },
      warn: (text) => this.#warn(text),
      withdraw: (text) => this.#withdraw(text),
      complain: (text) => this.#complain(text),
      busy: () => void this.#memory.look(),
    });
    return this.#serving;
  }

  #happened(event: QmpEvent): void {
    this.#serving?.happened(event);
    this.log.debug({ data: event.data }, `QEMU event ${event.name}`);
    const now = this.platform.clock.roughly();
    if (now - this.#looked < memoryPause) return;
    this.#looked = now;
    try {
      this.#memory.look();
    } catch (error) {
      this.log.warn({}, `memory not looked at: ${String(error)}`);
    }
  }

  async #qemuEnded(ended: QemuEnded): Promise<void> {
    const { code, signal } = ended.status;
    this.#report?.write("qemu/exit", code ?? signal ?? "unknown");
    if (this.#ending) return;
    if (code !== 0) return this.fail(ended);
    // Not the guest's end either: libxl always gives -no-shutdown, with which QEMU stays.
    const [when, remedy] =
      this.#phases.current === "running"
        ? [
            "while the guest runs",
            "someone ended it, by SIGTERM or QMP's quit, or the guest has broken into it; restart the guest",
          ]
        : [
            "before it answered on QMP",
            "take out of device_model_args_hvm= what has QEMU print something and exit",
          ];
    return this.fail(new BootError(`${ended.message}, ${when}`, remedy));
  }

  /** SIGUSR2, SIGUSR1 and SIGTERM are what poweroff, halt and reboot send; Linux runs the first on `xl shutdown`. */
  #signalled(signal: SignalName): void {
    if (signal === "SIGCHLD") this.#children.reapAll();
    else void this.#shutDown(signal);
  }

  async #shutDown(signal: SignalName): Promise<void> {
    if (this.#ending) return;
    this.#end(endsWithin.well);
    this.log.info({}, `${signal}: shutting down`);
    this.#report?.write("phase", "ended");
    await this.#stopQemu();
    await this.#powerOff(signal === "SIGTERM" ? "reboot" : "poweroff");
  }

  async #powerOff(how: "poweroff" | "reboot" | "crash"): Promise<void> {
    // What dom0 is to know must have left before the machine does; a dead xenstored must not keep it. The log first: the
    // others go by way of xenstore, some of it in calls that wait for it.
    await this.#within(lastWords, this.log.flush());
    await this.#within(lastWords, Promise.all([this.#report?.flush(), this.#serving?.stop()]));
    this.platform.processes.powerOff(how);
  }

  /** From here on there is no way back. */
  #end(within: number): void {
    this.#ending = true;
    try {
      this.platform.processes.endWithin(within);
    } catch (error) {
      this.log.debug({}, `nothing ends this machine if it hangs: ${String(error)}`);
    }
  }

  /** Resolves when QEMU has ended, if it ran, or when it will not: in the middle of a system call, say. */
  async #stopQemu(): Promise<void> {
    if (this.#qemu !== undefined) await this.#within(qemuPatience, this.#qemu.stop());
  }

  /** Waits for `work`, which never rejects, but no longer than `milliseconds`. */
  #within(milliseconds: number, work: Promise<unknown>): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.platform.clock.setTimer(milliseconds, resolve);
      void work.then(() => {
        timer.cancel();
        resolve();
      });
    });
  }

  /** Something is late but not lost: told in the log and to dom0 while there is time to look. */
  #warn(text: string): void {
    this.#tell("warn", text);
  }

  /** What was told has passed: dom0 need not look any more, unless something else is the matter by now. */
  #withdraw(text: string): void {
    const place = this.#told.findIndex((each) => each.text === text);
    if (place < 0 || this.#ending) return;
    this.#told.splice(place, 1);
    if (place === this.#told.length) this.#report?.write("error", this.#told.at(-1)?.text ?? "");
  }

  /** Something is lost for good, and yet the guest can go on. */
  #complain(text: string): void {
    this.#tell("error", text);
  }

  #tell(level: "warn" | "error", text: string): void {
    // What follows from the end must not hide its reason.
    if (this.#ending) return;
    this.log[level]({}, text);
    const place = this.#told.findIndex((each) => each.text === text);
    if (place >= 0) this.#told.splice(place, 1);
    this.#told.push({ text, lasting: level === "error" });
    if (this.#told.length > mostTold) this.#told.shift();
    this.#report?.write("error", text);
    this.#report?.release();
  }

  /** For debugging alone. */
  async #openShell(store: XenstoreClient, path: string): Promise<void> {
    const { openDebugShell } = await import("./debugging.ts");
    const { platform, log } = this;
    openDebugShell({ platform, log, store }, this.#children, path, (question) => this.#answer(question));
  }

  async #answer(question: Question): Promise<unknown> {
    switch (question.ask) {
      case "status":
        return this.#status();
      case "argv":
        return {
          libxl: (this.#arguments?.options ?? []).flatMap(({ tokens }) => tokens.map(decodeText)),
          qemu: this.#commandLine.map(decodeText),
        };
      case "devices":
        return [...this.#devices(), ...((await this.#passthrough?.list()) ?? [])];
      case "log":
        return this.log.recent;
      case "qmp": {
        if (this.#qemu === undefined)
          throw new BootError("QEMU does not run yet", "try again when `stubdom status` says running");
        const args: JsonObject = isJsonObject(question.arguments) ? question.arguments : {};
        const { commandDeadline, longAnswer } = await import("../qmp/client.ts");
        return this.#qemu.qmp.execute(question.command, args, commandDeadline, longAnswer);
      }
    }
  }

  #devices(): DeviceStatus[] {
    // Devices of the host come and go while the guest runs.
    const lasting = allFrontends(this.#found).filter(({ kind }) => kind !== "pci");
    return lasting.map((frontend) => {
      const outcome = this.#outcomes.get(frontend);
      const detail =
        outcome === undefined
          ? "not needed by QEMU"
          : outcome.connected
            ? `${outcome.devices.join(" ")}, connected after ${outcome.milliseconds.toFixed(0)} ms`
            : outcome.error.message;
      return { kind: frontend.kind, name: frontend.label, detail };
    });
  }

  #status(): StubdomStatus {
    const pid = this.#qemu?.pid;
    const screen = this.#serving?.screen;
    const peak = pid === undefined ? undefined : peakResident(this.platform.files, pid);
    return {
      version,
      domid: this.#identity?.domid ?? 0,
      target: this.#identity?.target,
      phase: this.#phases.current,
      phases: this.#phases.times,
      qemu: { ...(pid !== undefined && { pid }), ...(peak !== undefined && { peakKib: peak }) },
      memory: this.#memory.look(),
      ...(screen && { screen: { shown: screen.summary, counters: screen.counters } }),
      error: this.#told.at(-1)?.text,
    };
  }
}

/** What went wrong, and what to do: errors that were not made for people have no word of that. */
function tellingRemedy(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  if (error instanceof SystemError)
    return `${text}; boot the image's own kernel, stubdom-linux-kernel, with a stubdomain_memory= of at least 64, and see the lines above`;
  if (error instanceof ProtocolError)
    return `${text}; xenstored said what its protocol does not have: see its log in dom0, and restart the guest`;
  return text;
}
