/** What `helpers.c` exports to the suite. */
declare module "test-native" {
  export function detach(buffer: ArrayBuffer): void;
  export function collect(): void;
  export function failListen(errno: number): void;
  export function vchanOpen(): boolean;
  export function vchanIsBlocking(): boolean;
  export function clientState(state: 0 | 1 | 2): void;
  export function clientSend(bytes: Uint8Array): number;
  export function clientReceive(): ArrayBuffer;
}
