/*
 * Included before each of QEMU's files: hw/xen/xen_pt.c of 10.0 calls error_report() and gets its declaration
 * only by way of the `log` trace backend, which we leave out.
 */
#pragma once
void error_report(const char *fmt, ...) __attribute__((format(gnu_printf, 1, 2)));
