"""dom0's end of the network measurements; the guest's end is test/xen/guest/probe.c.

    peer.py FIRST_PORT BYTES

    FIRST_PORT      TCP: reads all, then closes
    FIRST_PORT + 1  TCP: sends BYTES, then closes
    FIRST_PORT + 2  UDP: counts a sender's packets; "?" is answered with "COUNT NS", from its first packet to its last
    FIRST_PORT + 3  UDP: sends each packet back

A guest that is destroyed says no farewell: each connection is a thread's own and ends after a while of silence, so that
the next guest finds all of it as the first one did. Prints "ready" once all are open.
"""

import collections
import socket
import sys
import threading
import time

CHUNK = 65536
SILENCE = 120  # seconds
SENDERS = 16  # whose packets are counted; the oldest is forgotten


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


def sink(connection):
    while connection.recv(CHUNK):
        pass


def source(connection, size):
    chunk = bytes(range(256)) * (CHUNK // 256)
    while size > 0:
        size -= connection.send(chunk[:size])


def connections(listener, serve):
    def serve_one(connection):
        with connection:
            connection.settimeout(SILENCE)
            try:
                serve(connection)
            except OSError as error:
                print(error, file=sys.stderr, flush=True)

    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve_one, args=(connection,), daemon=True).start()


def counter(sock):
    counts = collections.OrderedDict()
    while True:
        packet, sender = sock.recvfrom(2048)
        now = time.monotonic_ns()
        count, first, last = counts.get(sender, (0, now, now))
        if packet == b"?":
            sock.sendto(b"%d %d" % (count, last - first), sender)
            continue
        counts[sender] = (count + 1, first, now)
        if len(counts) > SENDERS:
            counts.popitem(last=False)


def echo(sock):
    while True:
        packet, sender = sock.recvfrom(2048)
        sock.sendto(packet, sender)


def main(first, size):
    services = (
        (socket.SOCK_STREAM, lambda listener: connections(listener, sink)),
        (socket.SOCK_STREAM, lambda listener: connections(listener, lambda each: source(each, size))),
        (socket.SOCK_DGRAM, counter),
        (socket.SOCK_DGRAM, echo),
    )
    opened_all = [(serve, opened(kind, first + index)) for index, (kind, serve) in enumerate(services)]
    threads = [threading.Thread(target=serve, args=(sock,)) for serve, sock in opened_all]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    for thread in threads:
        thread.join()


main(int(sys.argv[1]), int(sys.argv[2]))
