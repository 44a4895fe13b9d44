"""The other end of a guest's serial port: bytes to or from a terminal of dom0's, as they are.

    port.py read TTY BYTES     says "ready", reads so many, then prints their number and SHA-256. As fast as it can: of what
                               comes faster than it goes, dom0's QEMU keeps a mebibyte and drops the rest
    port.py follow TTY BYTES   the same, a look at a time for what comes slowly
    port.py write TTY FILE     writes the file, then prints "written" and ends with its standard input: dom0's QEMU looks
                               once a second whether somebody has the terminal open, and reads nothing of whom it missed
"""

import hashlib
import os
import sys
import termios
import time
import tty


def raw(path):
    port = os.open(path, os.O_RDWR | os.O_NOCTTY)
    tty.setraw(port, termios.TCSANOW)
    return port


def main(what, path, argument):
    port = raw(path)
    if what == "write":
        with open(argument, "rb") as file:
            data = file.read()
        while data:
            data = data[os.write(port, data[:1024]) :]
        termios.tcdrain(port)
        print("written", flush=True)
        sys.stdin.read()
        return
    print("ready", flush=True)
    left, hashed = int(argument), hashlib.sha256()
    while left > 0:
        chunk = os.read(port, min(left, 4096))
        # A guest's port is a byte a time: dom0 has better to do on an emulated host than to wake for each.
        if what == "follow" and len(chunk) < 1024:
            time.sleep(0.2)
        hashed.update(chunk)
        left -= len(chunk)
    print(int(argument) - left, hashed.hexdigest(), flush=True)


main(*sys.argv[1:])
