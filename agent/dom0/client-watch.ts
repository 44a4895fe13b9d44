import { decodeText } from "../bytes/text.ts";
import type { Timer } from "../platform/port.ts";
import {
  type Answer,
  answerNode,
  formatAnswer,
  helperHome,
  longestRequest,
  parseAnswer,
  parseRequest,
  type Request,
  RequestError,
  requestNode,
} from "../savestate/protocol.ts";
import type { Watch } from "../xenstore/client.ts";
import { detachDisk, removeIfThere } from "./attachment.ts";
import { FairShare } from "./fair-share.ts";
import { type HelperContext, Session, serves } from "./session.ts";

/** How often a helper at work says so, in milliseconds; stub domains give it five times that. */
const heartbeat = 2_000;
/** Least time between two looks at one stub domain's request, and after one that was refused. */
const pace = 20;
const slowPace = 500;
/** More events than this in one second are a flood: the watch is dropped for a while. */
const floodEvents = 100;
const floodWindow = 1_000;
const floodPause = 2_000;

/**
 * One stub domain as the helper sees it: watches its request node, carries out one request at a time, writes
 * the answers. However often a hostile one writes its node, it is looked at once in {@link pace}; one that
 * floods is not listened to for {@link floodPause}, so that it costs the others next to nothing.
 */
export class ClientWatch {
  readonly session: Session;
  readonly #node: string;
  #started: Promise<void> | undefined;
  #watch: Promise<Watch> | undefined;
  #timer: Timer | undefined;
  /** Number of the request that was answered last, or is being carried out. */
  #number = 0;
  #busy = false;
  /** Something was written while it was busy. */
  #again = false;
  #stopped = false;
  #nextLook = 0;
  readonly #share = new FairShare();
  #windowStart = 0;
  #events = 0;
  #floods = 0;

  constructor(
    private readonly context: HelperContext,
    readonly domid: number,
    readonly target: number,
  ) {
    this.session = new Session(context, domid, target);
    this.#node = requestNode(domid, target);
  }

  /** Removes what an earlier helper left, says that this one is there, and listens. To be called once. */
  start(): Promise<void> {
    this.#started = this.#start();
    return this.#started;
  }

  async #start(): Promise<void> {
    if (this.#stopped) return;
    const { xenstore, log } = this.context;
    const node = answerNode(this.domid);
    await detachDisk(xenstore, this.domid, log);
    const before = parseAnswer((await xenstore.tryReadText(node)) ?? "");
    // Without an answer, whatever was asked was asked of a helper that took its leave, and nobody waits for it.
    const known = before === undefined ? await this.#asked() : before.number;
    const home = `${helperHome}/${this.domid}`;
    await xenstore.transaction(async (tx) => {
      await tx.mkdir(home);
      await tx.setPermissions(home, [
        { domid: 0, access: "none" },
        { domid: this.domid, access: "read" },
      ]);
      if ((await tx.tryRead(node)) === undefined)
        await tx.write(node, formatAnswer({ number: 0, outcome: "ready" }));
      await tx.setPermissions(node, [
        { domid: 0, access: "none" },
        { domid: this.domid, access: "read" },
      ]);
    });
    this.#number = known;
    if (before?.outcome === "working") {
      await this.#answer({ number: this.#number, outcome: "refused", reason: "the helper was restarted" });
    }
    await this.#listen();
  }

  /** The domain has gone, or the helper goes. Idempotent. */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    // What it has yet to write is to be removed as well.
    await this.#started?.catch(() => {});
    await this.#watch?.then((watch) => watch.stop()).catch(() => {});
    await this.session.close();
    await removeIfThere(this.context.xenstore, `${helperHome}/${this.domid}`);
  }

  /** The number of the request that stands there, 0 for none. */
  async #asked(): Promise<number> {
    const bytes = await this.context.xenstore.tryRead(this.#node);
    try {
      return bytes === undefined ? 0 : parseRequest(decodeText(bytes.subarray(0, longestRequest + 1))).number;
    } catch (error) {
      if (error instanceof RequestError) return error.number;
      throw error;
    }
  }

  async #listen(): Promise<void> {
    if (this.#stopped) return;
    // Before it stands: its events can come with the answer, as many as it takes to be silenced.
    const watch = this.context.xenstore.watch(this.#node, () => this.#event());
    this.#watch = watch;
    await watch;
  }

  #event(): void {
    const now = this.context.platform.clock.now();
    if (now - this.#windowStart > floodWindow) {
      this.#windowStart = now;
      this.#events = 0;
    }
    if (++this.#events === floodEvents) this.#silence();
    else this.#schedule();
  }

  #silence(): void {
    const { log, platform } = this.context;
    const watch = this.#watch;
    this.#watch = undefined;
    if (this.#floods++ === 0)
      log.warn({}, `domain ${this.domid} floods its request node: it is listened to less`);
    void watch?.then((standing) => standing.stop()).catch(() => {});
    platform.clock.setTimer(floodPause, () => {
      if (!this.#stopped) this.#listen().catch((error: unknown) => this.#fault(error));
    });
  }

  #schedule(): void {
    this.#again = this.#busy;
    if (this.#busy || this.#stopped || this.#timer !== undefined) return;
    const { clock } = this.context.platform;
    this.#timer = clock.setTimer(Math.max(0, this.#nextLook - clock.now()), () => {
      this.#timer = undefined;
      void this.#look().catch((error: unknown) => this.#fault(error));
    });
  }

  async #look(): Promise<void> {
    const { xenstore, platform } = this.context;
    this.#busy = true;
    let wait = pace;
    try {
      const bytes = await xenstore.tryRead(this.#node);
      if (bytes === undefined) return;
      const request = parseRequest(decodeText(bytes.subarray(0, longestRequest + 1)));
      if (request.number === this.#number) return;
      this.#number = request.number;
      const answer = await this.#carryOut(request);
      if (answer.outcome === "refused") wait = slowPace;
    } catch (error) {
      if (!(error instanceof RequestError)) throw error;
      wait = slowPace;
      await this.#answer({ number: error.number, outcome: "refused", reason: error.message });
      this.#number = error.number;
    } finally {
      this.#busy = false;
      this.#nextLook = Math.max(this.#nextLook, platform.clock.now() + wait);
      if (this.#again) this.#schedule();
    }
  }

  async #carryOut(request: Request): Promise<Answer> {
    const { clock } = this.context.platform;
    const { number } = request;
    let count = 0;
    let working = this.#answer({ number, outcome: "working", count });
    let timer = clock.setTimer(heartbeat, beat.bind(this));
    function beat(this: ClientWatch): void {
      working = this.#answer({ number, outcome: "working", count: ++count });
      timer = clock.setTimer(heartbeat, beat.bind(this));
    }
    // None within a transfer, which is over the sooner: only where another begins.
    const rest = request.verb === "save" || request.verb === "restore" ? this.#share.owed(clock.now()) : 0;
    if (rest > 0) await new Promise<void>((resolve) => void clock.setTimer(rest, resolve));
    const began = clock.now();
    try {
      // Who is who was checked when the watch began; a guest may have gone since.
      const known = await serves(this.context.xenstore, this.domid, this.target);
      // Stopped meanwhile, it has given back all that it will ever have: nobody would take back what is attached now.
      const reply =
        known && !this.#stopped
          ? await this.session.carryOut(request)
          : ({ outcome: "refused", reason: "this is no stub domain any more" } as const);
      timer.cancel();
      await working;
      const answer = { number, ...reply };
      await this.#answer(answer);
      return answer;
    } finally {
      timer.cancel();
      const now = clock.now();
      this.#nextLook = now + this.#share.rest(now, now - began);
    }
  }

  async #answer(answer: Answer): Promise<void> {
    if (this.#stopped) return;
    try {
      await this.context.xenstore.write(answerNode(this.domid), formatAnswer(answer));
    } catch (error) {
      this.#fault(error);
    }
  }

  #fault(error: unknown): void {
    if (!this.#stopped) this.context.log.error({}, `domain ${this.domid}: ${String(error)}`);
  }
}
