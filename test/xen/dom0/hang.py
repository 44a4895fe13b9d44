"""A program of dom0's stands still, and what Xen says of a domain meanwhile: xl would ask xenstored for its name.

    hang.py PID DOMID LOG WORD SECONDS     stops the process once the file has the word, and lets it go on when the domain has
                                           shut down, or after so many seconds. Prints what the domain is at both times:
                                           "running", "gone", or "shut down" and Xen's number of the reason
"""

import ctypes
import glob
import os
import signal
import sys
import time

SHUTDOWN = 4  # XEN_DOMINF_shutdown; the reason is the third byte of the flags


class Xen:
    def __init__(self):
        self.library = ctypes.CDLL(glob.glob("/usr/lib/*/libxenctrl.so.*")[0])
        self.library.xc_interface_open.restype = ctypes.c_void_p
        self.handle = ctypes.c_void_p(self.library.xc_interface_open(None, None, 0))

    def state(self, domid):
        # struct xen_domctl_getdomaininfo: the domid in two bytes, two that are unused, the flags in four, and more.
        info = (ctypes.c_uint32 * 1024)()
        count = self.library.xc_domain_getinfolist(self.handle, domid, 1, info)
        if count != 1 or info[0] & 0xFFFF != domid:
            return "gone"
        return f"shut down {info[1] >> 16 & 0xFF}" if info[1] & SHUTDOWN else "running"


def said(log, word):
    with open(log, errors="replace") as file:
        return word in file.read()


def main(pid, domid, log, word, seconds):
    xen, pid, domid = Xen(), int(pid), int(domid)
    while not said(log, word):
        time.sleep(0.2)
    os.kill(pid, signal.SIGSTOP)
    try:
        print(xen.state(domid), flush=True)
        deadline = time.monotonic() + float(seconds)
        while xen.state(domid) == "running" and time.monotonic() < deadline:
            time.sleep(0.5)
        print(xen.state(domid), flush=True)
    finally:
        os.kill(pid, signal.SIGCONT)


main(*sys.argv[1:])
