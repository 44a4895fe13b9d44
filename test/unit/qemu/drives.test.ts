import { expect, test } from "vitest";
import { encodeText } from "../../../agent/bytes/text.ts";
import { readDmArguments } from "../../../agent/qemu/dm-argv.ts";
import { driveFiles } from "../../../agent/qemu/drives.ts";

test.each([
  ["-drive file=/dev/xvda,if=ide,index=0,media=disk,format=host_device", "ide0-hd0", "/dev/xvda"],
  ["-drive file=/dev/xvdd,if=ide,index=3,media=disk,format=host_device", "ide1-hd1", "/dev/xvdd"],
  ["-drive file=/dev/xvdc,if=ide,index=2,media=cdrom,format=host_device", "ide1-cd0", "/dev/xvdc"],
  ["-drive file=/dev/xvda,if=none,id=ahcidisk-0,format=host_device", "ahcidisk-0", "/dev/xvda"],
  ["-drive file=/dev/xvdb,id=scsi0-hd1,format=host_device,if=none,readonly=off", "scsi0-hd1", "/dev/xvdb"],
  ["-drive if=none,readonly=on,id=ide-5632", "ide-5632", ""],
])("%s is %s", (text, name, file) => {
  const { options } = readDmArguments(`-xen-domid 5 ${text}`.split(" ").map(encodeText), 5);
  expect([...driveFiles(options)]).toEqual([[name, file]]);
});

test("what has no name is left out", () => {
  const words = "-xen-domid 5 -drive if=ide,index=x -drive file=/dev/xvda -drive -net none".split(" ");
  expect(driveFiles(readDmArguments(words.map(encodeText), 5).options).size).toBe(0);
});
