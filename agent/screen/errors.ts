/** Everything that this room throws. Nothing of it is worth the guest's life: the screen ends, QEMU runs on. */
export class ScreenError extends Error {
  override readonly name: string = "ScreenError";
}

/** QEMU said something on the screen's socket that RFB, or what was agreed on, does not allow. */
export class RfbError extends ScreenError {
  override readonly name = "RfbError";
}

/** The screen's socket ended. */
export class RfbClosed extends ScreenError {
  override readonly name = "RfbClosed";
}

/** The framebuffer's pixels are not of the one format that is drawn. */
export class UnsuitableFramebuffer extends ScreenError {
  override readonly name = "UnsuitableFramebuffer";
}
