import { beforeEach, describe, expect, it } from "vitest";
import type { Descriptors } from "../../../agent/platform/port.ts";
import { SystemError } from "../../../agent/platform/port.ts";
import { DescriptorStream, SocketStream, StreamClosed } from "../../../agent/platform/stream.ts";
import { settle } from "../../fakes/clock.ts";
import { fakePlatform } from "../../fakes/platform.ts";

const fd = 7;

/** One descriptor: reads give what is scripted, `null` when it would block; writes take up to `room` bytes. */
class ScriptedDescriptor {
  readonly incoming: (Uint8Array | null | SystemError)[] = [];
  readonly taken: number[] = [];
  room = Number.POSITIVE_INFINITY;
  readable: (() => void) | null = null;
  writable: (() => void) | null = null;
  closed = 0;

  descriptors(): Descriptors {
    return fakePlatform({
      descriptors: {
        read: (_fd, into) => {
          const next = this.incoming.shift() ?? null;
          if (next instanceof SystemError) throw next;
          if (next !== null) into.set(next);
          return next === null ? null : next.length;
        },
        write: (_fd, from) => {
          if (this.room === 0) return null;
          const part = from.subarray(0, Math.min(from.length, this.room));
          this.room -= part.length;
          this.taken.push(...part);
          return part.length;
        },
        onReadable: (_fd, ready) => {
          this.readable = ready;
        },
        onWritable: (_fd, ready) => {
          this.writable = ready;
        },
        close: () => {
          this.closed++;
        },
      },
    }).descriptors;
  }
}

let under: ScriptedDescriptor;
let stream: DescriptorStream;

beforeEach(() => {
  under = new ScriptedDescriptor();
  stream = new DescriptorStream(under.descriptors(), fd, "test");
});

describe("reading", () => {
  it("returns what is there without waiting", async () => {
    under.incoming.push(Uint8Array.of(1, 2));
    expect(await stream.read()).toEqual(Uint8Array.of(1, 2));
    expect(under.readable).toBeNull();
  });

  it("waits for readiness, and listens until something comes that nobody wants", async () => {
    const reading = stream.read();
    await settle();
    expect(under.readable).not.toBeNull();
    under.incoming.push(Uint8Array.of(3));
    under.readable?.();
    expect(await reading).toEqual(Uint8Array.of(3));
    const next = stream.read();
    under.incoming.push(Uint8Array.of(4));
    under.readable?.();
    expect(await next).toEqual(Uint8Array.of(4));
    under.incoming.push(Uint8Array.of(5));
    under.readable?.();
    expect(under.readable).toBeNull();
    expect(await stream.read()).toEqual(Uint8Array.of(5));
  });

  it("goes on waiting after a false alarm", async () => {
    const reading = stream.read();
    await settle();
    under.readable?.();
    await settle();
    expect(under.readable).not.toBeNull();
    under.incoming.push(Uint8Array.of(4));
    under.readable?.();
    expect(await reading).toEqual(Uint8Array.of(4));
  });

  it("ends with null", async () => {
    under.incoming.push(new Uint8Array());
    expect(await stream.read()).toBeNull();
  });

  it("passes an error on", async () => {
    under.incoming.push(new SystemError("EIO", "read", "test"));
    await expect(stream.read()).rejects.toMatchObject({ code: "EIO" });
  });

  it("gives each chunk bytes of its own", async () => {
    under.incoming.push(Uint8Array.of(1), Uint8Array.of(2));
    const first = await stream.read();
    await stream.read();
    expect(first).toEqual(Uint8Array.of(1));
  });
});

describe("receiving", () => {
  let taken: number[][];
  let received: Promise<void>;

  beforeEach(() => {
    taken = [];
    received = stream.receive((piece, count) => {
      taken.push([...piece.subarray(0, count)]);
    });
  });

  function come(...next: typeof under.incoming): void {
    under.incoming.push(...next);
    for (const _ of next) under.readable?.();
  }

  it("hands over what comes, one piece each time that there is something", async () => {
    come(Uint8Array.of(1, 2), null, Uint8Array.of(3));
    expect(taken).toEqual([[1, 2], [3]]);
  });

  it("resolves at the end, and listens no more", async () => {
    come(Uint8Array.of(1), new Uint8Array());
    await received;
    expect(under.readable).toBeNull();
  });

  it("resolves when closed, without another look at the descriptor", async () => {
    stream.close();
    await received;
    expect(under.closed).toBe(1);
    await stream.receive(() => expect.unreachable());
  });

  it("rejects when the stream breaks, and with what the taker throws", async () => {
    come(new SystemError("EIO", "read", "test"));
    await expect(received).rejects.toMatchObject({ code: "EIO" });
    const second = stream.receive(() => {
      throw new Error("enough");
    });
    come(Uint8Array.of(9));
    await expect(second).rejects.toThrow("enough");
    expect(under.readable).toBeNull();
  });
});

describe("writing", () => {
  it("goes on until every byte is taken, waiting where there is no room", async () => {
    under.room = 2;
    const writing = stream.write(Uint8Array.of(1, 2, 3));
    await settle();
    expect(under.taken).toEqual([1, 2]);
    under.room = 5;
    under.writable?.();
    await writing;
    expect(under.taken).toEqual([1, 2, 3]);
    expect(under.writable).toBeNull();
  });

  it("keeps concurrent writes in order and apart", async () => {
    under.room = 1;
    const writes = [
      stream.write(Uint8Array.of(1, 2)),
      stream.write(Uint8Array.of(3)),
      stream.write(Uint8Array.of(4)),
    ];
    await settle();
    under.room = 10;
    under.writable?.();
    await Promise.all(writes);
    expect(under.taken).toEqual([1, 2, 3, 4]);
  });

  it("takes nothing from later writes because an earlier one failed", async () => {
    const failing = new DescriptorStream(
      fakePlatform({
        descriptors: {
          write: (_fd, from) => {
            if (from[0] === 1) throw new SystemError("EPIPE", "write", "test");
            return from.length;
          },
        },
      }).descriptors,
      fd,
      "test",
    );
    const first = failing.write(Uint8Array.of(1));
    const second = failing.write(Uint8Array.of(2));
    await expect(first).rejects.toMatchObject({ code: "EPIPE" });
    await second;
  });
});

describe("a stream that hands descriptors over", () => {
  it("sends the descriptor once, with the first byte that goes, and in its turn", async () => {
    const sent: string[] = [];
    const results = [null, 2, 1];
    const socket = new SocketStream(
      fakePlatform({
        descriptors: {
          write: (_fd, from) => {
            sent.push(`write ${from.join(" ")}`);
            return from.length;
          },
          onWritable: (_fd, ready) => void (ready && setImmediate(ready)),
        },
        sockets: {
          sendDescriptor: (_socket, bytes, descriptor) => {
            sent.push(`send ${descriptor} with ${bytes.join(" ")}`);
            return results.shift() ?? null;
          },
        },
      }),
      fd,
      "test",
    );
    await Promise.all([
      socket.write(Uint8Array.of(0)),
      socket.writeWith(Uint8Array.of(1, 2, 3), 70),
      socket.writeWith(Uint8Array.of(4), 71),
    ]);
    expect(sent).toEqual([
      "write 0",
      "send 70 with 1 2 3",
      "send 70 with 1 2 3",
      "write 3",
      "send 71 with 4",
    ]);
  });
});

describe("closing", () => {
  it("closes the descriptor once, and removes the handlers first", () => {
    stream.close();
    stream.close();
    expect(under.closed).toBe(1);
    expect([under.readable, under.writable]).toEqual([null, null]);
  });

  it("ends a read that waits, and refuses a write that does", async () => {
    under.room = 1;
    const reading = stream.read();
    const writing = stream.write(Uint8Array.of(1, 2));
    await settle();
    stream.close();
    expect(await reading).toBeNull();
    await expect(writing).rejects.toBeInstanceOf(StreamClosed);
    expect(under.taken).toEqual([1]);
  });

  it("leaves nothing to read or write afterwards", async () => {
    stream.close();
    expect(await stream.read()).toBeNull();
    await expect(stream.write(Uint8Array.of(1))).rejects.toBeInstanceOf(StreamClosed);
  });
});
