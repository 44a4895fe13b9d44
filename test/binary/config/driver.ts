/**
 * The configuration of an ini file, resolved by a program compiled like the agent.
 *
 *     driver INI       prints {"config": ..., "warnings": ...}
 */
import "../../../agent/platform/quickjs/globals.ts";
import { resolveConfig } from "../../../agent/config/config.ts";
import { programArguments } from "../net-joint/platform.ts";

void resolveConfig("", programArguments()[1] ?? "").then((result) => console.log(JSON.stringify(result)));
