"""dom0's end of the network measurements; the guest's end is test/xen/guest/probe.c.

    peer.py FIRST_PORT BYTES

    FIRST_PORT      TCP: reads all, then closes
    FIRST_PORT + 1  TCP: sends BYTES, then closes
    FIRST_PORT + 2  UDP: counts packets; a packet "?" is answered with the count, which begins anew
    FIRST_PORT + 3  UDP: sends each packet back

One process and one thread: the guest uses one of them at a time. Prints "ready" once all are open.
"""

import selectors
import socket
import sys

CHUNK = 65536


def opened(kind, port):
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if kind == socket.SOCK_DGRAM:
        # What the guest sends must be lost in the guest's path, not here.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    sock.bind(("", port))
    if kind == socket.SOCK_STREAM:
        sock.listen(4)
    return sock


def sink(listener):
    connection, _ = listener.accept()
    with connection:
        while connection.recv(CHUNK):
            pass


def source(listener, size):
    connection, _ = listener.accept()
    chunk = bytes(range(256)) * (CHUNK // 256)
    with connection:
        try:
            while size > 0:
                size -= connection.send(chunk[:size])
        except OSError:
            pass  # the guest has gone


class Counter:
    def __init__(self):
        self.count = 0

    def __call__(self, sock):
        packet, sender = sock.recvfrom(2048)
        if packet == b"?":
            sock.sendto(str(self.count).encode(), sender)
            self.count = 0
        else:
            self.count += 1


def echo(sock):
    packet, sender = sock.recvfrom(2048)
    sock.sendto(packet, sender)


def main(first, size):
    selector = selectors.DefaultSelector()
    services = (
        (socket.SOCK_STREAM, sink),
        (socket.SOCK_STREAM, lambda listener: source(listener, size)),
        (socket.SOCK_DGRAM, Counter()),
        (socket.SOCK_DGRAM, echo),
    )
    for index, (kind, serve) in enumerate(services):
        selector.register(opened(kind, first + index), selectors.EVENT_READ, serve)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            try:
                key.data(key.fileobj)
            except OSError as error:
                print(error, file=sys.stderr, flush=True)


main(int(sys.argv[1]), int(sys.argv[2]))
