import { Duplex, PassThrough } from "node:stream";
import { expect, test } from "vitest";
import { ControlChannel, encodeFrame, FrameReader } from "../../../scripts/lab/channel.ts";
import { LabError } from "../../../scripts/lab/errors.ts";

/** The type of a PONG, as dom0/labd.py has it. */
const PONG = 20;

/** dom0's end: sends each payload back as a PONG. */
function answering(): Duplex {
  const reader = new FrameReader();
  return new Duplex({
    read() {},
    write(chunk: Buffer, _, done) {
      for (const frame of reader.push(chunk)) this.push(encodeFrame({ ...frame, type: PONG }));
      done();
    },
  });
}

test("a ping resolves when dom0 answers", async () => {
  const channel = new ControlChannel(answering());
  await Promise.all([channel.ping(), channel.ping()]);
  channel.close(new LabError("done"));
});

test("the end of the channel is told to all who wait: pings, commands, and whoever comes later", async () => {
  // Nobody answers.
  const channel = new ControlChannel(new PassThrough());
  const both = () => [channel.ping(), channel.open(["true"]).exited];
  const before = both();
  channel.close(new LabError("the emulated host ended"));
  const ended = [...before, ...both()].map((each) => expect(each).rejects.toThrow("the emulated host ended"));
  await Promise.all(ended);
});

test("a stream that closes by itself ends the channel", async () => {
  const stream = new PassThrough();
  const pong = new ControlChannel(stream).ping();
  stream.destroy();
  await expect(pong).rejects.toThrow("control channel: closed");
});
