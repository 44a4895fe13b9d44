"""A VNC viewer that runs in dom0 and measures there, so that the way out of the emulated host costs nothing.

    watch.py PORT rate SECONDS       updates that come in that time, whatever draws them
    watch.py PORT change ROUNDS      F5, which has the guest fill its screen; from the key to the last pixel
    watch.py PORT select             only asks for the screen, see below

Prints one line of JSON. dom0's QEMU from version 9.1 on shows a screen that has come after its VNC server was
opened only when it is asked for, with Ctrl-Alt-1.
"""
import json
import socket
import struct
import sys
import time

QUIET = 1.5  # seconds without an update after which a change is complete
F5, CTRL, ALT, ONE = 0x3F, 0x1D, 0x38, 0x02


class Viewer:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.take(12)
        self.socket.sendall(b"RFB 003.008\n")
        self.take(self.take(1)[0])
        self.socket.sendall(b"\x01")
        if self.take(4) != b"\0\0\0\0":
            sys.exit("the VNC server wants a password")
        self.socket.sendall(b"\x01")
        self.width, self.height = struct.unpack(">HH", self.take(4))
        self.take(16)
        self.take(struct.unpack(">I", self.take(4))[0])
        pixels = struct.pack(">BBBBHHHBBB3x", 32, 24, 0, 1, 255, 255, 255, 16, 8, 0)
        self.socket.sendall(b"\0\0\0\0" + pixels)
        encodings = [0, -223, -258]
        self.socket.sendall(struct.pack(">BxH3i", 2, len(encodings), *encodings))
        self.request(False)

    def take(self, size):
        data = bytearray(size)
        view = memoryview(data)
        while view:
            count = self.socket.recv_into(view)
            if count == 0:
                sys.exit("the VNC server has gone")
            view = view[count:]
        return data

    def request(self, incremental):
        self.socket.sendall(struct.pack(">BBHHHH", 3, incremental, 0, 0, self.width, self.height))

    def key(self, key):
        for down in (1, 0):
            self.send_key(key, down)

    def send_key(self, key, down):
        self.socket.sendall(struct.pack(">BBHII", 255, 0, down, 0, key))

    def pointer(self, x, y):
        self.socket.sendall(struct.pack(">BBHH", 5, 0, x, y))

    def select(self):
        self.send_key(CTRL, 1), self.send_key(ALT, 1), self.key(ONE)
        self.send_key(ALT, 0), self.send_key(CTRL, 0)

    def update(self, seconds):
        """Pixels of the next update; None when none has begun after so many seconds."""
        deadline = time.monotonic() + seconds
        while True:
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                kind = self.take(1)[0]
            except socket.timeout:
                return None
            finally:
                self.socket.settimeout(None)
            if kind == 0:
                pixels = self.rectangles()
                if pixels:
                    return pixels
            elif kind == 3:
                self.take(struct.unpack(">3xI", self.take(7))[0])

    def rectangles(self):
        pixels, resized = 0, False
        for _ in range(struct.unpack(">xH", self.take(3))[0]):
            _, _, width, height, encoding = struct.unpack(">HHHHi", self.take(12))
            if encoding == 0:
                self.take(4 * width * height)
                pixels += width * height
            elif encoding == -223:
                self.width, self.height, resized = width, height, True
        if resized or pixels:
            self.request(not resized)
        return pixels


def rate(viewer, seconds):
    updates = pixels = 0
    began = time.monotonic()
    moved = began
    while (now := time.monotonic()) - began < seconds:
        if now - moved > 10:  # somebody is there
            moved = now
            viewer.pointer(1 + updates % 2, 1)
        count = viewer.update(seconds)
        if count:
            updates, pixels = updates + 1, pixels + count
    return {"updates": updates, "pixels": pixels, "seconds": time.monotonic() - began}


def change(viewer, rounds):
    times = []
    for index in range(rounds):
        viewer.pointer(1 + index % 2, 1)
        while viewer.update(QUIET):
            pass
        pressed = last = time.monotonic()
        viewer.key(F5)
        area = 0
        # The first may take long, those behind it not.
        while count := viewer.update(QUIET if area else 30):
            last, area = time.monotonic(), area + count
        times.append(round(1000 * (last - pressed)) if area >= viewer.width * viewer.height else None)
    return {"milliseconds": times}


def main():
    port, task, *words = sys.argv[1:]
    viewer = Viewer(int(port))
    viewer.update(30)
    viewer.select()
    if task == "select":
        result = {"width": viewer.width, "height": viewer.height}
    else:
        result = {"rate": rate, "change": change}[task](viewer, int(words[0]))
    print(json.dumps(result | {"width": viewer.width, "height": viewer.height}))


main()
