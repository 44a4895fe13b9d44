/**
 * What the agent logs with: the few methods of a pino logger that it uses, so that a room needs no pino to
 * be tested. `fields` are the machine-readable part, `message` the human one.
 */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };
