import type { JsonObject } from "../qmp/json.ts";

/**
 * What the command line in the debug shell asks PID 1: one JSON question a connection, ended by a newline;
 * one JSON answer, ended by the end of the stream. Both sides are the same program.
 */
export const controlSocket = "/run/stubdom.sock";

/** Longest question in bytes. */
export const longestQuestion = 64 * 1024;

export type Question =
  | { readonly ask: "status" | "devices" | "argv" | "log" }
  | { readonly ask: "qmp"; readonly command: string; readonly arguments?: JsonObject };

export type Answer = { readonly result: unknown } | { readonly error: string };
