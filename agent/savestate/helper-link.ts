import { decodeText } from "../bytes/text.ts";
import type { Logger } from "../log/logger.ts";
import type { Clock } from "../platform/port.ts";
import type { Watch, XenstoreClient } from "../xenstore/client.ts";
import { isOutOfSight } from "../xenstore/errors.ts";
import { TransferError } from "./errors.ts";
import {
  type Answer,
  type Ask,
  answerNode,
  formatRequest,
  parseAnswer,
  type Reply,
  requestNode,
} from "./protocol.ts";

/** The helper says `working` at once and then every two seconds; silent for so long, it is gone. */
const helperSilence = 10_000;
/** One that has never answered, and does not even say that, is not there: its node is a dead one's. */
const firstSilence = 3_000;
/**
 * A helper at work says so for as long as it lives, also where a disk of dom0's never answers. All that it ever has to do is
 * to read and write a state of 256 MiB, which takes 270 s at 2 MB/s.
 */
const longestWork = 300_000;

/** No helper answers in dom0; state goes over the consoles then. */
export class HelperAbsent extends TransferError {}

/** The stub domain's side of `protocol.ts`: asks dom0's helper one thing at a time; a new question ends an older one. */
export class HelperLink {
  #number = 1 + Math.floor(Math.random() * 0x7fff_ffff);
  #watching: Promise<Watch> | undefined;
  /** The question under way. */
  #asking: { changed(): void; lost(error: unknown): void } | undefined;
  /** Since the last {@link close} it has answered a question: silent, it is stuck, not absent. */
  #met = false;

  constructor(
    private readonly store: XenstoreClient,
    private readonly clock: Clock,
    private readonly log: Logger,
    private readonly domid: number,
    private readonly target: number,
  ) {}

  /** Whether a helper has prepared for this stub domain. One that has died since cannot be told from it. */
  async present(): Promise<boolean> {
    const answer = await this.#read();
    return answer !== undefined;
  }

  /**
   * @returns the answer of the kind `outcome`
   * @param most milliseconds, however often the helper says that it is at work
   * @throws TransferError when the helper refuses, or stops answering; HelperAbsent when it never began to
   */
  async ask<O extends Reply["outcome"]>(
    ask: Ask,
    outcome: O,
    most = longestWork,
  ): Promise<Extract<Answer, { outcome: O }>> {
    const number = this.#next();
    const answer = await this.#exchange(number, formatRequest({ ...ask, number }), ask.verb, most);
    if (answer.outcome === outcome) return answer as Extract<Answer, { outcome: O }>;
    const said = answer.outcome === "refused" ? answer.reason : `an unexpected "${answer.outcome}"`;
    throw new TransferError(`dom0's helper refused "${ask.verb}": ${said}`);
  }

  /** Listens to the helper no longer, until the next question. Idempotent. */
  close(): void {
    this.#met = false;
    const watching = this.#watching;
    this.#watching = undefined;
    void watching?.then((watch) => watch.stop()).catch(() => {});
  }

  #exchange(number: number, request: string, verb: string, most: number): Promise<Answer> {
    this.#asking?.lost(new TransferError(`"${verb}" came before the last answer of dom0's helper`));
    return new Promise((resolve, reject) => {
      let settled = false;
      let asked = false;
      let heard = "";
      const settle = (act: () => void) => {
        if (settled) return;
        settled = true;
        silence.cancel();
        late.cancel();
        this.#asking = undefined;
        act();
      };
      const expire = () => {
        const text = `dom0's helper does not answer "${verb}"`;
        const absent = heard === "" && !this.#met;
        if (absent) this.#withdraw();
        const stuck = `${text} any more; see whether it runs: stubdom dom0 status`;
        settle(() => reject(absent ? new HelperAbsent(text) : new TransferError(stuck)));
      };
      let silence = this.clock.setTimer(this.#met ? helperSilence : firstSilence, expire);
      const late = this.clock.setTimer(most, () => {
        const text = `dom0's helper has not done "${verb}" in ${most / 1000} s; see dom0's kernel log about its disks`;
        settle(() => reject(new TransferError(text)));
      });
      const look = async () => {
        const answer = await this.#read();
        if (settled || answer?.number !== number) return;
        if (answer.outcome !== "working") {
          this.#met = true;
          return settle(() => resolve(answer));
        }
        const news = `working ${answer.count}`;
        if (news === heard) return;
        heard = news;
        silence.cancel();
        silence = this.clock.setTimer(helperSilence, expire);
      };
      const fail = (error: unknown) => settle(() => reject(error));
      this.#asking = {
        // What is said before the request goes out is no answer to it.
        changed: () => {
          if (asked) void look().catch(fail);
        },
        lost: fail,
      };
      this.#listening()
        .then(async () => {
          // Withdrawn while the watch was being set: asked now, it would be carried out for nobody.
          if (settled) return;
          asked = true;
          await this.store.write(requestNode(this.domid, this.target), request);
          this.log.debug({ request }, `state disk: asked dom0: ${request}`);
        })
        .catch(fail);
    });
  }

  /** One watch for all questions: setting one costs as much as asking. */
  #listening(): Promise<Watch> {
    this.#watching ??= this.store.watch(
      answerNode(this.domid),
      () => this.#asking?.changed(),
      (error) => {
        this.#watching = undefined;
        this.#asking?.lost(error);
      },
    );
    return this.#watching.catch((error: unknown) => {
      this.#watching = undefined;
      throw error;
    });
  }

  /** One who comes late, or is started later, must not attach a disk that nobody waits for. */
  #withdraw(): void {
    const request = formatRequest({ verb: "release", number: this.#next() });
    this.store.write(requestNode(this.domid, this.target), request).catch(() => {});
  }

  #next(): number {
    const number = this.#number;
    this.#number = (number % 0xffff_ffff) + 1;
    return number;
  }

  async #read(): Promise<Answer | undefined> {
    try {
      return parseAnswer(decodeText(await this.store.read(answerNode(this.domid))));
    } catch (error) {
      if (isOutOfSight(error)) return undefined;
      throw error;
    }
  }
}
