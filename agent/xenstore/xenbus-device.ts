import type { Platform } from "../platform/port.ts";
import { type ByteStream, DescriptorStream } from "../platform/stream.ts";

/** Most bytes of a read: Linux hands out what has come, whole or not. Replies are short, and a buffer is made for each. */
const chunk = 512;

/** Where Linux lets a domain talk to xenstored. */
export const xenbusDevice = "/dev/xen/xenbus";

/** One connection through the kernel; throws `SystemError` when there is no such device. */
export function openXenbus({ descriptors }: Pick<Platform, "descriptors">): ByteStream {
  const fd = descriptors.open(xenbusDevice, { access: "read-write", nonBlocking: true });
  return new DescriptorStream(descriptors, fd, xenbusDevice, chunk);
}
