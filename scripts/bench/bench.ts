/** `npm run bench`: what the stub domain costs and how fast it is, beside other ways to emulate the same devices. */

import { existsSync, readFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { capture } from "../../bundler/exec.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { progress } from "../../bundler/progress.ts";
import { LabHost } from "../lab/host.ts";
import { LocalHost } from "../lab/local.ts";
import type { XenHost } from "../lab/xen-host.ts";
import { compare, comparisonText, sameClock } from "./compare.ts";
import { type Bench, drawingDisk, measuringDisk } from "./measuring.ts";
import { readMinios } from "./minios.ts";
import { optionsOf, type Plan, USAGE } from "./options.ts";
import { checkWritable, removeOwn, writeAll } from "./output.ts";
import { xlInfo } from "./readings.ts";
import { type HostFacts, parseResults, Recorder, type Results } from "./results.ts";
import { endAtOnceWhenInterrupted, MADE_AGAIN, measureAll } from "./rounds.ts";
import { markdown } from "./table.ts";
import { interleaved } from "./variants.ts";

endAtOnceWhenInterrupted();

async function facts(host: XenHost, kind: HostFacts["kind"], icount: boolean): Promise<HostFacts> {
  const info = (await host.run("xl info")).stdout;
  const { stdout: qemu } = await host.run(
    "/usr/libexec/xen-qemu-system-i386 --version 2> /dev/null || /usr/lib/xen-*/bin/qemu-system-i386 --version 2> /dev/null || qemu-system-i386 --version",
    { accept: "any" },
  );
  const processors = cpus();
  return {
    kind,
    xen: `Xen ${xlInfo(info, "xen_version")}`,
    dom0: `Linux ${xlInfo(info, "release")}, ${qemu.split("\n")[0]?.replace(/ \(.*/, "") || "QEMU unknown"}`,
    machine: `${processors[0]?.model ?? "unknown processor"}, ${processors.length} cores`,
    icount,
  };
}

async function main(): Promise<number> {
  const options = optionsOf(process.argv.slice(2));
  if (options === undefined) {
    console.log(USAGE);
    return 0;
  }
  const { source } = options;
  const old = options.compare === undefined ? undefined : read(options.compare);
  const { output } = source;
  if (output !== undefined) checkWritable(output);
  if (old !== undefined && "settings" in source) sameClock(old, source.icount);
  const results = "settings" in source ? await made(source) : read(source.from);
  const files = output === undefined ? [] : writeAll(results, output);
  console.log(markdown(results));
  console.log(
    output === undefined ? "no files: --output DIRECTORY has them written" : `${output}: ${files.join(", ")}`,
  );
  // Troubles of results made before were told then.
  const well = "from" in source || results.troubles.every((each) => each.includes(MADE_AGAIN));
  const failed = well ? 0 : 1;
  if (old === undefined) return failed;
  const comparison = compare(old, results, options.tolerance);
  console.log(`\nSince ${old.made.slice(0, 10)} (${old.commit}):\n${comparisonText(comparison)}`);
  const worse = comparison.changes.some(({ verdict }) => verdict === "worse") || comparison.lost.length > 0;
  return worse ? 1 : failed;
}

function read(file: string): Results {
  return parseResults(readFileSync(file, "utf8"), file);
}

/** What is measured, and what measures it. */
const BUILT = ["stubdom", "stubdom-linux-kernel", "stubdom-linux-ramdisk", "test-guest-kernel"] as const;

async function made({
  settings,
  variants,
  minios,
  hvmloader,
  host: kind,
  xen,
  icount,
  output,
}: Plan): Promise<Results> {
  // A file that is not there, or is another, shall not wait for the host.
  const missing = BUILT.filter((name) => !existsSync(join(PROJECT, "dist", name)));
  if (missing.length > 0) throw new Error(`no ${missing.join(", ")} in dist/: npm run build makes them`);
  const given = minios === undefined ? undefined : readMinios(minios, hvmloader);
  const order = interleaved(variants, settings.runs);
  // A copy without its history has none.
  const described = capture(["git", "describe", "--always", "--dirty", "--exclude=*"]);
  const commit = (await described.catch(() => "unknown")).trim();
  const host = await progress.step("Xen host", async () =>
    kind === "local"
      ? LocalHost.start()
      : LabHost.start({
          deterministic: icount,
          xenArgs: xen === "" ? [] : [xen],
          // On one processor it does not matter where Xen has put whom, which differs from boot to boot.
          // And what two boots of the host differ by does not matter to those who go on from the same one.
          ...(icount && { vcpus: 1, saved: xen === "" }),
          // One thread does all of it, and does not hurry on a machine that has other work.
          ...(icount && { bootTimeout: 1800 }),
        }),
  );
  try {
    const recorder = new Recorder();
    const about = await facts(host, kind, icount);
    const bench: Bench = {
      host,
      settings,
      recorder,
      disk: measuringDisk,
      screen: drawingDisk,
      ...(given !== undefined && { minios: given }),
    };
    const { groups, density, ...rest } = settings;
    const results = (ended?: string): Results => {
      const made = recorder.results({
        made: new Date().toISOString(),
        commit,
        host: about,
        settings: {
          ...rest,
          groups: groups.join(","),
          density: density.join(","),
          ...(xen !== "" && { xen }),
        },
        variants,
        order,
      });
      return ended === undefined ? made : { ...made, troubles: [...made.troubles, ended] };
    };
    removeOwn(output);
    // What has been measured is kept, however the rest ends: a guest takes minutes.
    await measureAll(bench, variants, order, (ended) => writeAll(results(ended), output));
    return results();
  } finally {
    await host.stop();
  }
}

// Not by exitCode: a run that was interrupted has work under way that nobody waits for any more.
main().then(
  (status) => process.exit(status),
  (error: unknown) => {
    console.error(`bench: ${error instanceof Error ? error.message : error}`);
    process.exit(2);
  },
);
