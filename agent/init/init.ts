import { describe } from "../log/describe.ts";
import { HeldLog } from "../log/held.ts";
import type { Platform } from "../platform/port.ts";
import { askFirst } from "./first-questions.ts";
import { mountAll } from "./mounts.ts";

/**
 * Process 1 of the stub domain. Returns once the boot has come to its end, good or bad; the event loop then
 * goes on for as long as the machine runs. Never rejects.
 *
 * @param onUncaught registers the hook for errors that no code caught
 */
export async function runInit(
  platform: Platform,
  onUncaught: (report: (error: unknown) => void) => void,
): Promise<void> {
  let unmounted: unknown;
  try {
    mountAll(platform.files);
  } catch (error) {
    unmounted = error;
  }
  // While dom0 answers, the rest is loaded.
  const questions = askFirst(platform);
  const announced = questions.then((first) => first.announced).catch(() => {}); // the boot tells what went wrong
  const log = new HeldLog(platform.clock, async () => {
    const { openLog } = await import("./console-log.ts");
    await announced;
    return openLog(platform, unmounted);
  });
  // A fault of the agent's own: told, but no reason to end the guest's device model.
  onUncaught((error) => log.error({}, `fault of the agent: ${describe(error)}`));
  const { Stubdom } = await import("./stubdom.ts");
  const stubdom = new Stubdom(platform, log);
  try {
    await stubdom.boot(questions);
  } catch (error) {
    await stubdom.fail(error);
  }
}
