/** The debug shell's session, in a dom0 whose proxy ends before it should. */
import { expect, test } from "vitest";
import { EXIT, RemoteProcess, STDERR, STDOUT } from "../../../scripts/lab/channel.ts";
import { inStubdom } from "../../../scripts/lab/debug-shell.ts";
import { Guest } from "../../../scripts/lab/guest.ts";
import { XenHost } from "../../../scripts/lab/xen-host.ts";

class Dom0 extends XenHost {
  override readonly log = "";
  override get guestFaults(): readonly string[] {
    return [];
  }
  override async stop(): Promise<void> {}
  override spawn(command: string | readonly string[]): RemoteProcess {
    const process = new RemoteProcess(() => {});
    const proxy = command.includes("-c");
    setImmediate(() => {
      if (proxy) process.receive(STDERR, Buffer.from("no such program"));
      else process.receive(STDOUT, Buffer.from("7\n"));
      process.receive(EXIT, Buffer.from(JSON.stringify({ code: proxy ? 127 : 0 })));
    });
    return process;
  }
}

test("a session that ends is told of at once, with what it said", async () => {
  const guest = new Guest(new Dom0(), "web", 0, true);
  await expect(inStubdom(guest, "true")).rejects.toThrow(
    "the debug shell of web ended with 127; it said:\nno such program",
  );
});
