/**
 * What `bundler/native/` exports to JavaScript. Each function returns a result, or -errno; see the C file
 * of the same group for what it wants. Nothing but the files in this folder imports it.
 */
declare module "stubdom-native" {
  type Result = number;

  export const argv: string[];

  export function watch(fd: number, direction: 1 | 2, ready: (() => void) | null): Result;
  export function armTimer(deadline: number): void;
  export function onTimer(fire: () => void): void;
  export function onUncaught(report: (error: unknown) => void): void;
  export function now(): number;
  export function roughly(): number;
  export function started(): number;
  export function wallClock(): number;

  export function open(path: string, flags: number, mode: number): Result;
  export function close(fd: number): Result;
  export function read(fd: number, into: Uint8Array): Result;
  export function write(fd: number, from: Uint8Array): Result;
  export function seek(fd: number, offset: number): Result;
  export function dataSync(fd: number): Result;
  export function size(fd: number): Result;
  export function status(path: string, follow: boolean): [mode: number, size: number] | Result;
  export function readDirectory(path: string): string[] | Result;
  export function makeDirectory(path: string): Result;
  export function makeFifo(path: string): Result;
  export function remove(path: string): Result;
  export function rename(from: string, to: string): Result;
  export function readLink(path: string): string | Result;
  export function symlink(target: string, path: string): Result;
  export function mount(source: string, target: string, type: string, flags: number, data: string): Result;

  export function spawn(
    argv: readonly (string | Uint8Array)[],
    env: readonly string[],
    descriptors: readonly number[],
    flags: number,
  ): Result;
  export function executedAt(): number;
  export function reap(): [pid: number, code: number, signal: string | null] | null;
  export function kill(pid: number, signal: number): Result;
  export function yieldWakeUps(pid: number): Result;
  export function signals(numbers: readonly number[]): Result;
  export function powerOff(how: string): Result;
  export function endWithin(seconds: number): Result;
  export function crashAlong(domid: number): Result;
  export function exit(code: number): never;
  export function pid(): number;
  export function environment(name: string): string | undefined;

  export function socketPair(): [number, number] | Result;
  export function listenUnix(path: string): Result;
  export function accept(fd: number): Result;
  export function connectUnix(path: string): Result;
  export function sendDescriptor(socket: number, bytes: Uint8Array, descriptor: number): Result;
  export function pipe(): [number, number] | Result;
  export function netlinkRoute(groups: number): Result;
  export function kernelEvents(): Result;
  export function openTap(name: string, vnetHeader: boolean): Result;
  export function terminalRaw(fd: number): Result;
  export function openTerminalRaw(path: string): Result;

  export function hash(bytes: Uint8Array, seed: bigint): bigint;
  export function alignedBuffer(size: number): ArrayBuffer;
  export function jobsReady(): Result;
  /** Operations: 0 read at, 1 write at, 2 fdatasync, 3 tcdrain. */
  export function submit(
    operation: 0 | 1 | 2 | 3,
    fd: number,
    bytes: Uint8Array | null,
    offset: number,
  ): Result;
  export function results(): number[];
  export function loopAttach(
    fd: number,
    readOnly: boolean,
  ): [fd: number, major: number, minor: number] | Result;
  export function loopResize(fd: number): Result;
  export function deviceNumber(fd: number): [major: number, minor: number] | Result;
  export function truncate(fd: number, size: number): Result;
  export function tryLock(fd: number): Result;
  export function freeSpace(path: string): Result;
  export function pipeSize(fd: number, bytes: number): Result;

  export function encodeText(text: string): ArrayBuffer;
  export function decodeText(bytes: Uint8Array): string;
  export function errorName(errno: number): string | undefined;

  /** An opaque libxenvchan server ring. */
  export interface Vchan {
    readonly brand: unique symbol;
  }
  export function holdDevices(): Result;
  export function vchanListen(domid: number, path: string): Vchan | Result;
  export function vchanDescriptor(vchan: Vchan): number;
  export function vchanAcknowledge(vchan: Vchan): Result;
  export function vchanState(vchan: Vchan): 0 | 1 | 2;
  export function vchanRead(vchan: Vchan, into: Uint8Array): Result;
  export function vchanWrite(vchan: Vchan, from: Uint8Array): Result;
  export function vchanClose(vchan: Vchan): void;

  export function framebufferMode(
    fd: number,
  ):
    | [
        width: number,
        height: number,
        stride: number,
        size: number,
        bits: number,
        red: number,
        green: number,
        blue: number,
      ]
    | Result;
  export function setFramebufferMode(fd: number, width: number, height: number): Result;
  /** An opaque `struct pixels` of bundler/native/pixels.h. */
  export interface Pixels {
    readonly brand: unique symbol;
  }
  export function pixelsOpen(socket: number): Pixels | Result;
  export function pixelsTake(pixels: Pixels, into: Uint8Array): Result;
  export function pixelsBegin(pixels: Pixels, plan: Int32Array): Result;
  export function pixelsDraw(pixels: Pixels): Result;
  export function pixelsClear(pixels: Pixels, framebuffer: number, size: number): Result;
  export function pixelsClose(pixels: Pixels): void;
}
