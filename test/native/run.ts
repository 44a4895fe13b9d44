/**
 * The C module, its heap, and QEMU's clock and flush, under the address and undefined-behaviour sanitizers, with leak detection:
 *
 *     tsx test/native/run.ts [TEXT]
 *
 * Compiles `bundler/native/` with the suite beside this file, its heap, `bundler/clock/` and `bundler/flush/` with their own, in the Debian root
 * that the agent is built in and runs each test (whose name contains TEXT) as a process of its own: a crash or a leak is the failure of
 * one test, and its report is shown.
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { logFile } from "../../bundler/cache.ts";
import { runInRoot } from "../../bundler/debian.ts";
import { PROJECT } from "../../bundler/paths.ts";
import { progress } from "../../bundler/progress.ts";
import { buildRoot } from "../../bundler/root.ts";

const here = (name: string) => fileURLToPath(new URL(name, import.meta.url));

const COMPILE = `
cd /build
qjsc -c -m -M stubdom-native -M test-native -N stubdom_bundle -o bundle.c /recipe/bundle.js
gcc -c -o bundle.o bundle.c
compile() {
  gcc -std=gnu17 -Wall -Wextra -Werror -Og -g -D_GNU_SOURCE -fPIE -fno-omit-frame-pointer \\
    -fsanitize=address,undefined -fno-sanitize-recover=all -I/recipe "$@"
}
for file in /recipe/*.c; do
  compile -DHEAP_OF_MALLOC -c -o "$(basename "$file" .c).o" "$file"
done
compile -I/recipe/heap -pie -o heap /recipe/heap/test.c
for library in clock flush; do
  compile -pie -o $library /recipe/$library/$library.c -lpthread
done
gcc -pie -fsanitize=address,undefined -Wl,--wrap=js_init_module_stubdom_native -o suite *.o \\
  /usr/lib/x86_64-linux-gnu/quickjs/libquickjs.a -lm -lpthread
./suite >suite.names
./clock >clock.names
./flush >flush.names
./heap >heap.names
`;

/**
 * In namespaces of their own: tests make TAP devices and mounts, send signals, and end. The /tmp of each is
 * the root's tmpfs; a test that hangs is ended after a minute.
 */
const RUN = `
export ASAN_OPTIONS=detect_leaks=1:detect_stack_use_after_return=1:strict_string_checks=1:exitcode=99
export UBSAN_OPTIONS=print_stacktrace=1
mkdir -p /build/results
unshare --net --pid --fork --kill-child --mount-proc sh -eu -c '
  xargs -r -P "$(nproc)" -n 2 sh -c "
    timeout 60 /build/\\$0 \\$1 >/build/results/\\$0-\\$1.log 2>&1 </dev/null
    echo \\$? >/build/results/\\$0-\\$1.status
  " </build/chosen'
`;

async function bundle(): Promise<string> {
  const result = await build({
    entryPoints: [here("main.ts")],
    absWorkingDir: PROJECT,
    bundle: true,
    write: false,
    format: "esm",
    platform: "neutral",
    external: ["stubdom-native", "test-native"],
    target: "es2023",
    logLevel: "silent",
  });
  return result.outputFiles[0]?.text ?? "";
}

function lines(path: string): string[] {
  return readFileSync(path, "utf8").split("\n").filter(Boolean);
}

async function main(wanted: string): Promise<number> {
  const root = await buildRoot();
  const scratch = mkdtempSync(join(tmpdir(), "native-tests-"));
  try {
    const [recipe, output] = [join(scratch, "recipe"), join(scratch, "build")];
    mkdirSync(recipe);
    mkdirSync(output);
    writeFileSync(join(recipe, "bundle.js"), await bundle());
    const native = join(PROJECT, "bundler/native");
    for (const name of readdirSync(native).filter((name) => /\.[ch]$/.test(name)))
      writeFileSync(join(recipe, name), readFileSync(join(native, name)));
    for (const name of ["helpers.c", "cases.h"]) writeFileSync(join(recipe, name), readFileSync(here(name)));
    mkdirSync(join(recipe, "heap"));
    writeFileSync(join(recipe, "heap/test.c"), readFileSync(here("heap.c")));
    for (const library of ["clock", "flush"]) {
      mkdirSync(join(recipe, library));
      const file = (name: string) => join(recipe, library, name);
      writeFileSync(file(`${library}.c`), readFileSync(here(`${library}.c`)));
      const ours = readFileSync(join(PROJECT, "bundler", library, `${library}.c`));
      writeFileSync(file(`${library}-library.c`), ours);
    }
    const inside = { log: logFile("native-tests"), binds: { [recipe]: "/recipe", [output]: "/build" } };

    await progress.step("native tests: compile with sanitizers", (step) =>
      runInRoot(root.path, COMPILE, { ...inside, step }),
    );
    const tests = ["suite", "clock", "flush", "heap"].flatMap((program) =>
      lines(join(output, `${program}.names`)).map((name, number) => ({ program, number, name })),
    );
    const chosen = tests.filter(({ name }) => name.includes(wanted));
    writeFileSync(
      join(output, "chosen"),
      chosen.map(({ program, number }) => `${program} ${number}\n`).join(""),
    );
    await progress.step(`native tests: run ${chosen.length}`, (step) =>
      runInRoot(root.path, RUN, { ...inside, step }),
    );
    let failed = 0;
    for (const { program, number, name } of chosen) {
      const [status] = lines(join(output, "results", `${program}-${number}.status`));
      if (status === "0") continue;
      failed++;
      const why = status === "124" ? "did not end within a minute" : `exit status ${status}`;
      const log = readFileSync(join(output, "results", `${program}-${number}.log`), "utf8").trimEnd();
      console.log(`FAILED ${name} (${why})\n${log.replaceAll(/^/gm, "    ")}\n`);
    }
    console.log(`${chosen.length - failed} passed, ${failed} failed`);
    return failed === 0 && chosen.length > 0 ? 0 : 1;
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

process.exitCode = await main(process.argv[2] ?? "");
