import type { Platform } from "../platform/port.ts";
import { DescriptorStream, type PushedStream } from "../platform/stream.ts";

/** Most bytes of a read: Linux hands out what has come, whole or not. Replies are short. */
const chunk = 512;

/** Where Linux lets a domain talk to xenstored. */
export const xenbusDevice = "/dev/xen/xenbus";

/** One connection through the kernel; throws `SystemError` when there is no such device. */
export function openXenbus({ descriptors }: Pick<Platform, "descriptors">): PushedStream {
  const fd = descriptors.open(xenbusDevice, { access: "read-write", nonBlocking: true });
  return new DescriptorStream(descriptors, fd, xenbusDevice, chunk);
}
