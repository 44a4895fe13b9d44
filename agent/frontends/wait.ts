/** Waiting for PV devices to come up: all at once, by one watch, until one deadline. */
import type { FileSystem, Platform, Timer } from "../platform/port.ts";
import type { Watch, XenstoreClient } from "../xenstore/client.ts";
import { BadNode, type FrontendFailure, NotConnected } from "./errors.ts";
import { KernelEvents } from "./kernel-events.ts";
import { type Backend, type Frontend, parseBackend, parseState, stateText, XenbusState } from "./xenbus.ts";

export type { Frontend } from "./xenbus.ts";

export const defaultDeadline = 10_000;

export type FrontendOutcome =
  | {
      readonly connected: true;
      readonly frontend: Frontend;
      /** What Linux made of it: `/dev/xvda`, `eth0`. */
      readonly devices: readonly string[];
      /** From the call to its being there. */
      readonly milliseconds: number;
      /** Of these, those since it was looked for and was not there; 0 for what was there at the first look. */
      readonly waited: number;
    }
  | {
      readonly connected: false;
      readonly frontend: Frontend;
      readonly error: FrontendFailure;
      /** Its time was over, and it may still come; otherwise it was given up, by either side, and will not. */
      readonly late: boolean;
    };

/**
 * Waits until each of `frontends` is connected and has its Linux device, or `milliseconds` have passed, or its
 * backend has closed it; one outcome for each, in the same order. Those that are not to be awaited count as
 * absent from the start: leave them out. Rejects only with {@link XenstoreFailure} and {@link SystemError}.
 *
 * @param milliseconds counts from the call or from `since`, also where it is known only later
 * @param needed which of them count, where that is known only later: the others are waited for until then. What
 *   it rejects with ends the waiting
 * @param since when they were waited for first, if not now
 */
export async function waitForFrontends(
  client: XenstoreClient,
  platform: Pick<Platform, "files" | "descriptors" | "sockets">,
  frontends: readonly Frontend[],
  milliseconds: number | Promise<number> = defaultDeadline,
  needed: Promise<readonly Frontend[]> = Promise.resolve(frontends),
  since = client.clock.now(),
): Promise<FrontendOutcome[]> {
  if (frontends.length === 0) return Promise.all([needed, milliseconds]).then(() => []);
  const { files } = platform;
  const events = new KernelEvents(platform, () => {
    for (const wait of waits) wait.kernelEvent();
  });
  const waits = frontends.map(
    (frontend) => new FrontendWait(client, files, events, frontend, milliseconds, since),
  );
  let lose: (error: unknown) => void = () => {};
  const lost = new Promise<never>((_resolve, reject) => {
    lose = reject;
  });
  // Without a deadline there is no waiting.
  const settled = Promise.all([needed, milliseconds]).then(([all]) =>
    Promise.all(waits.filter(({ frontend }) => all.includes(frontend)).map(({ outcome }) => outcome)),
  );
  // Whichever of the two ends the race, the other's later failure is nobody's; nor is that of one not needed.
  for (const { outcome } of waits) outcome.catch(() => {});
  lost.catch(() => {});
  settled.catch(() => {});
  let watch: Watch | undefined;
  try {
    // Where all are there already, a watch would be two requests for nothing.
    await Promise.race([Promise.all(waits.map((wait) => wait.look())), settled]);
    if (waits.some((wait) => !wait.done)) {
      // Over all devices at once: setting a watch blocks for a round trip. Its first event has all looked at again.
      watch = await client.watch(
        "device",
        (path) => {
          for (const wait of waits) wait.changed(path);
        },
        lose,
      );
    }
    return await Promise.race([settled, lost]);
  } finally {
    for (const wait of waits) wait.stop();
    events.close();
    void watch?.stop().catch(() => {});
  }
}

/** One frontend on its way. */
class FrontendWait {
  readonly outcome: Promise<FrontendOutcome>;
  #settle: (outcome: FrontendOutcome) => void = () => {};
  #fail: (error: unknown) => void = () => {};
  /** When it was first looked for in vain. */
  #missed: number | undefined;
  #deadline: Timer | undefined;
  #late = false;
  /** The frontend says that it is, and its Linux device was not there yet. */
  #connected = false;
  #done = false;
  #looking = false;
  #again = false;

  constructor(
    private readonly client: XenstoreClient,
    private readonly files: FileSystem,
    private readonly events: KernelEvents,
    readonly frontend: Frontend,
    milliseconds: number | Promise<number>,
    private readonly since: number,
  ) {
    this.outcome = new Promise((resolve, reject) => {
      this.#settle = resolve;
      this.#fail = reject;
    });
    if (typeof milliseconds === "number") this.#setDeadline(milliseconds);
    else milliseconds.then((value) => this.#setDeadline(value)).catch(() => {});
  }

  #setDeadline(milliseconds: number): void {
    if (this.#done) return;
    const { clock } = this.client;
    const rest = Math.max(0, this.since + milliseconds - clock.now());
    this.#deadline = clock.setTimer(rest, () => {
      this.#late = true;
      void this.#giveUp();
    });
  }

  /** An event of the watch: the state itself changed, or something above it did. */
  changed(path: string): void {
    const node = `${this.frontend.path}/state`;
    if (path === node || node.startsWith(`${path}/`)) void this.look();
  }

  /** Some device came or went. */
  kernelEvent(): void {
    if (!this.#connected || this.#done) return;
    try {
      this.#deviceIsThere();
    } catch (error) {
      this.#refuse(error);
    }
  }

  /** Nothing will change any more. */
  get done(): boolean {
    return this.#done;
  }

  /** Idempotent. */
  stop(): void {
    this.#done = true;
    this.#deadline?.cancel();
  }

  /** One read at a time; an event during a read asks for one more, for the value may be older than it. */
  async look(): Promise<void> {
    this.#again = true;
    if (this.#looking) return;
    this.#looking = true;
    try {
      while (this.#again && !this.#done) {
        this.#again = false;
        const node = `${this.frontend.path}/state`;
        this.#take(parseState(node, await this.client.tryReadText(node)));
      }
    } catch (error) {
      this.#refuse(error);
    } finally {
      this.#looking = false;
    }
  }

  #take(state: number | undefined): void {
    if (this.#done) return;
    this.#connected = state === XenbusState.Connected;
    if (this.#connected) this.#lookForDevice();
    // Our own driver or the backend has given the device up: nothing more will come of it.
    else if (state === XenbusState.Closing || state === XenbusState.Closed) void this.#giveUp();
    if (!this.#done) this.#missed ??= this.client.clock.now();
  }

  /**
   * blkfront says Connected just before it adds its disk. What is not there yet is announced by the kernel;
   * what came before that could be heard is seen by the second look.
   */
  #lookForDevice(): void {
    if (this.#deviceIsThere()) return;
    this.events.open();
    this.#deviceIsThere();
  }

  #deviceIsThere(): boolean {
    const devices = this.frontend.linuxDevices(this.files);
    if (devices.length === 0) return false;
    this.stop();
    const now = this.client.clock.now();
    const [milliseconds, waited] = [now - this.since, now - (this.#missed ?? now)];
    this.#settle({ connected: true, frontend: this.frontend, devices, milliseconds, waited });
    return true;
  }

  /** Collects where both sides stand and what they left in xenstore, and settles with that. */
  async #giveUp(): Promise<void> {
    if (this.#done) return;
    this.stop();
    const milliseconds = this.client.clock.now() - this.since;
    const { client, frontend } = this;
    const { path } = frontend;
    try {
      const named = await read(client, `${path}/backend`);
      // None any more where the device is being taken away.
      const other = named === undefined ? undefined : parseBackend(`${path}/backend`, named);
      const backend = other?.path ?? "(none)";
      const [frontendState, backendState, ...notes] = await Promise.all([
        read(client, `${path}/state`),
        other && read(client, `${backend}/state`),
        frontend.kind === "vif" ? note(client, "its MAC is", `${path}/mac`) : undefined,
        note(client, "our kernel says", `error/${path}/error`),
        ...(other === undefined ? [] : backendNotes(client, other)),
      ]);
      const states = [
        parseState(`${path}/state`, frontendState),
        parseState(`${backend}/state`, backendState),
      ];
      const at = {
        frontendState: states[0],
        backendState: states[1],
        milliseconds,
        notes: notes.filter((text) => text !== undefined),
      };
      const connected = at.frontendState === XenbusState.Connected;
      const remedy = connected
        ? "the frontend says Connected but Linux shows no device: see the kernel's messages"
        : frontend.remedy(at.frontendState, at.backendState, backend);
      const label = `${frontend.label} (${path})`;
      this.#settle({
        connected: false,
        frontend,
        error: new NotConnected(label, backend, at, remedy, stateText),
        late: this.#late,
      });
    } catch (error) {
      this.#refuse(error);
    }
  }

  /** A node with nonsense is this device's affair alone; what is left is xenstore's or the system's. */
  #refuse(error: unknown): void {
    this.stop();
    if (error instanceof BadNode) {
      this.#settle({ connected: false, frontend: this.frontend, error, late: this.#late });
    } else {
      this.#fail(error);
    }
  }
}

/** A value for a report: what may not be read counts as missing. */
async function read(client: XenstoreClient, path: string): Promise<string | undefined> {
  try {
    return await client.readText(path);
  } catch {
    return undefined;
  }
}

function backendNotes(client: XenstoreClient, { path, domid }: Backend): Promise<string | undefined>[] {
  const own = `/local/domain/${domid}/`;
  return [
    note(client, "the hotplug script says", `${path}/hotplug-error`),
    note(client, "the backend says", `${own}error/${path.slice(own.length)}/error`),
  ];
}

async function note(client: XenstoreClient, who: string, path: string): Promise<string | undefined> {
  const text = await read(client, path);
  return text ? `${who} ${JSON.stringify(text.slice(0, 200))}` : undefined;
}
