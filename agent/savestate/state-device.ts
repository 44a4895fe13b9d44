/** The vbd that a state disk is attached as: xvdzz, far from every name that people give. */
export const stateDevice = { number: (1 << 28) | (701 << 8), name: "xvdzz" } as const;
