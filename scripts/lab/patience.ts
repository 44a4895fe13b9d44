/**
 * Times after which the lab and its tests give up are written for a machine of usual speed with nothing else to do. One
 * that is slow or busy gets so many times as long: they only end what hangs, and whoever is in time pays nothing.
 */
export const PATIENCE = 3;
