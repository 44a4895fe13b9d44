/** Where QEMU's VNC server listens, inside the stub domain. */
export const screenSocket = "/run/qemu-screen.sock";

/**
 * What QEMU needs on its command line, beside libxl's `-display none`, for the screen to be had.
 *
 * share=force-shared: QMP's screendump apart, one client only, but none may turn another away.
 * lock-key-sync=off: QEMU would press Num Lock and Caps Lock by itself to match keysyms, which the agent
 * does not know and leaves to dom0's VNC server.
 *
 * `-k` (keymap= of the guest's configuration) must not stand beside it: QEMU then looks for the keysym
 * instead of the key. The layout is an affair of dom0's QEMU, which alone sees keysyms.
 */
export const screenArguments: readonly string[] = [
  "-vnc",
  `unix:${screenSocket},share=force-shared,lock-key-sync=off`,
];
