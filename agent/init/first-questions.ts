import { announcePrimaryConsole } from "../frontends/console.ts";
import { discoverFrontends, type Frontends } from "../frontends/discover.ts";
import type { Platform } from "../platform/port.ts";
import { SideBySide } from "../xenstore/side-by-side.ts";
import { type Identity, readIdentity } from "./identity.ts";
import { type Argument, readArguments } from "./libxl-arguments.ts";

/** What a boot begins with: requests under way, whose failures wait until somebody asks for the answer. */
export interface FirstQuestions {
  /** When they were asked, in milliseconds since the kernel booted. */
  readonly asked: number;
  /** What they are asked over; the boot closes it when QEMU has been started. */
  readonly reading: SideBySide;
  /** Dom0's QEMU serves the primary console. Nothing must be printed before: it would hold up whoever writes. */
  readonly announced: Promise<void>;
  readonly identity: Promise<Identity>;
  readonly devices: Promise<Frontends>;
  /** For QEMU, as xenstored tells them. */
  readonly arguments: Promise<readonly Argument[]>;
}

/**
 * Asks xenstore what every boot needs to know. Answers take some ten milliseconds each way, in which the rest of the
 * program is loaded: this and what it imports is all that PID 1 holds by then.
 *
 * Rejects with `SystemError` where there is no xenbus device.
 */
export async function askFirst(platform: Pick<Platform, "descriptors" | "clock">): Promise<FirstQuestions> {
  const asked = platform.clock.now();
  const reading = new SideBySide(platform);
  const identity = readIdentity(reading);
  const announced = announcePrimaryConsole(reading);
  const devices = discoverFrontends(reading);
  const libxl = identity.then(({ target }) => readArguments(reading, target));
  for (const answer of [identity, announced, devices, libxl]) answer.catch(() => {});
  return { asked, reading, announced, identity, devices, arguments: libxl };
}
