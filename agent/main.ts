import "./platform/quickjs/globals.ts";
import * as native from "stubdom-native";

/**
 * The composition root. What the program is depends on how it was started: as process 1 it is the stub
 * domain's init, otherwise the command line. Each half is a chunk of bytecode of its own, loaded only where
 * it is needed, because it costs time and memory; nothing but the globals is imported statically, so that
 * they are there before any other module runs.
 */
async function main(): Promise<void> {
  const { createPlatform } = await import("./platform/quickjs/platform.ts");
  const platform = createPlatform();
  if (platform.processes.pid === 1) {
    const { runInit } = await import("./init/init.ts");
    await runInit(platform, native.onUncaught);
    return;
  }
  const { runCli } = await import("./cli/cli.ts");
  platform.processes.exit(await runCli(platform, native.argv.slice(1)));
}

main().catch((error: unknown) => {
  console.error(`stubdom: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
  native.exit(1);
});
