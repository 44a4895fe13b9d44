/** A guest that draws: test/xen/screen/guest.S, assembled in the build root. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runInRoot } from "../../bundler/debian.ts";
import { PROJECT } from "../../bundler/paths.ts";

/** Makes its disk in `directory`; gives its path. @param root where assembler and linker are */
export async function screenGuest(root: string, directory: string): Promise<string> {
  writeFileSync(join(directory, "guest.S"), readFileSync(join(PROJECT, "test/xen/screen/guest.S")));
  const assemble = [
    "cd /build",
    "as --32 -o guest.o guest.S",
    "ld -m elf_i386 -e 0x7c00 -Ttext 0x7c00 --oformat binary -o guest.img guest.o",
    "truncate -s 1M guest.img",
  ].join("\n");
  await runInRoot(root, assemble, { log: join(directory, "as.log"), binds: { [directory]: "/build" } });
  return join(directory, "guest.img");
}
