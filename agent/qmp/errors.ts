/**
 * What can go wrong on a QMP connection.
 *
 *     QmpError
 *     ├── QmpFramingError     the bytes are not QMP, or exceed a bound; the connection is unusable
 *     ├── QmpCommandError     QEMU (or a handler of ours) refused one command; the connection goes on
 *     ├── QmpTimeout          no answer within the deadline; the connection may still be alive
 *     └── QmpConnectionClosed the connection ended before the answer came
 */
export class QmpError extends Error {
  override readonly name: string = "QmpError";
}

export class QmpFramingError extends QmpError {
  override readonly name = "QmpFramingError";
}

export class QmpCommandError extends QmpError {
  override readonly name = "QmpCommandError";
  constructor(
    readonly command: string,
    /** QAPI's `QapiErrorClass`: `GenericError`, `CommandNotFound`, `DeviceNotFound`... */
    readonly errorClass: string,
    /** QEMU's own words, meant for a person. */
    readonly description: string,
  ) {
    super(`QMP ${command}: ${errorClass}: ${description}`);
  }
}

export class QmpTimeout extends QmpError {
  override readonly name = "QmpTimeout";
  constructor(
    readonly awaited: string,
    readonly milliseconds: number,
  ) {
    super(`QMP: no answer to ${awaited} within ${milliseconds / 1000} s`);
  }
}

export class QmpConnectionClosed extends QmpError {
  override readonly name = "QmpConnectionClosed";
}
