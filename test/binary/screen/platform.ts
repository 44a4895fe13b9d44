import { argv } from "stubdom-native";

export { createPlatform } from "../../../agent/platform/quickjs/platform.ts";

/** The program's arguments, itself first. */
export function programArguments(): readonly string[] {
  return argv;
}
