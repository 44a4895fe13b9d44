import { type Platform, SystemError } from "../platform/port.ts";
import { answerNode, helperHome, requestNode } from "../savestate/protocol.ts";
import { lockPath } from "./helper.ts";
import { defaultSettings } from "./settings.ts";
import { connectXenstore } from "./xenstore.ts";

export interface Dom0Status {
  readonly running: boolean;
  readonly version: string | undefined;
  readonly domains: readonly {
    readonly domid: number;
    readonly target: string;
    readonly guest: string;
    /** As they stand in xenstore; see savestate/protocol.ts. */
    readonly request: string | undefined;
    readonly answer: string | undefined;
  }[];
}

/** What can be seen from outside of the helper; it need not run. */
export async function readStatus(
  platform: Platform,
  directory = defaultSettings.directory,
  xenstored?: string,
): Promise<Dom0Status> {
  const xenstore = await connectXenstore(platform, xenstored);
  try {
    const names = await xenstore.tryDirectory(helperHome);
    const domains = await Promise.all(
      names.map(Number).map(async (domid) => {
        const target = (await xenstore.tryReadText(`/local/domain/${domid}/target`)) ?? "";
        const [guest, request, answer] = await Promise.all([
          target === "" ? undefined : xenstore.tryReadText(`/local/domain/${target}/name`),
          target === "" ? undefined : xenstore.tryReadText(requestNode(domid, Number(target))),
          xenstore.tryReadText(answerNode(domid)),
        ]);
        return { domid, target, guest: guest ?? "", request, answer };
      }),
    );
    const version = await xenstore.tryReadText(helperHome);
    return { running: isLocked(platform, directory), version, domains };
  } finally {
    xenstore.close();
  }
}

/** Its lock says more than its nodes do, which outlive a helper that was killed. */
function isLocked(platform: Platform, directory: string): boolean {
  let fd: number;
  try {
    fd = platform.descriptors.open(lockPath({ ...defaultSettings, directory }), { access: "write" });
  } catch (error) {
    if (error instanceof SystemError && error.code === "ENOENT") return false;
    throw error;
  }
  try {
    return !platform.storage.tryLock(fd);
  } finally {
    platform.descriptors.close(fd);
  }
}
