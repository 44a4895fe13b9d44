"""Knocks at a vif of dom0's with every kind of frame, and counts what comes back from the domain behind it.

    scan.py INTERFACE PREFIX MAC...
    scan.py write FILE OWN PREFIX MAC...

INTERFACE  vifS.N, the stub domain's NIC
PREFIX     10.9.0: every address of this network is asked for
MAC        addresses that the stub domain's interfaces have

Prints "sent N" and one line for each frame that came back, in hex. Asks for addresses by ARP, sends TCP SYN to every
well-known port, UDP, ICMP, IPv6 and what bridges and switches say to each other, to each MAC and to all.

With `write` they are not sent, but written to a file for the guest to send, from its own MAC and PREFIX.2: each two bytes of
length, low one first, and the frame. Prints "written N".
"""

import socket
import struct
import sys
import time

ETH_P_ALL = 3
PACKET_OUTGOING = 4
OWN = bytes.fromhex("02005e000001")
ALL = b"\xff" * 6


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def checksum(data):
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def arp(address, source):
    return struct.pack(">HHBBH6s4s6s4s", 1, 0x800, 6, 4, 1, OWN, source, b"\0" * 6, address)


def ipv4(protocol, source, to, payload):
    head = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(payload), 1, 0, 64, protocol, 0, source, to)
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def over_ipv4(protocol, source, to, payload, place):
    pseudo = source + to + struct.pack(">BBH", 0, protocol, len(payload))
    return payload[:place] + struct.pack(">H", checksum(pseudo + payload)) + payload[place + 2 :]


def syn(source, to, port):
    segment = struct.pack(">HHIIBBHHH", 40000, port, 1, 0, 0x50, 2, 1024, 0, 0)
    return ipv4(6, source, to, over_ipv4(6, source, to, segment, 16))


def udp(source, to, port):
    datagram = struct.pack(">HHHH", 40000, port, 13, 0) + b"knock"
    return ipv4(17, source, to, over_ipv4(17, source, to, datagram, 6))


def echo(source, to, kind=8):
    message = struct.pack(">BBHHH", kind, 0, 0, 1, 1) + b"knock" * 4
    return ipv4(1, source, to, message[:2] + struct.pack(">H", checksum(message)) + message[4:])


def ipv6(to, kind, body):
    source = bytes.fromhex("fe80000000000000 02005efffe000001".replace(" ", ""))
    message = struct.pack(">BBH", kind, 0, 0) + body
    pseudo = source + to + struct.pack(">II", len(message), 58)
    message = message[:2] + struct.pack(">H", checksum(pseudo + message)) + message[4:]
    return struct.pack(">IHBB", 6 << 28, len(message), 58, 255) + source + to + message


def frames(prefix, macs, asker):
    source = bytes(map(int, f"{prefix}.{asker}".split(".")))
    network = [bytes(map(int, f"{prefix}.{n}".split("."))) for n in range(256)]
    odd = [socket.inet_aton(text) for text in ("0.0.0.0", "127.0.0.1", "169.254.1.1", "224.0.0.1", "255.255.255.255")]
    for to in [*macs, ALL]:
        for address in [*network, *odd]:
            yield to, 0x806, arp(address, source)
        for address in [network[2], network[200], network[255], *odd]:
            for kind in (8, 13, 17):
                yield to, 0x800, echo(source, address, kind)
            for port in (7, 53, 67, 68, 69, 111, 123, 137, 161, 1900, 5353, 33434):
                yield to, 0x800, udp(source, address, port)
            for port in (*range(1, 1025), 2049, 3389, 4444, 5900, 8080, 16509) if address == network[2] else (22, 80):
                yield to, 0x800, syn(source, address, port)
            for protocol in (2, 41, 47, 50, 132):
                yield to, 0x800, ipv4(protocol, source, address, b"\0" * 20)
        groups = [bytes.fromhex(f"ff0{scope}" + "00" * 13 + last) for scope in "12" for last in ("01", "02", "fb")]
        own = [
            bytes.fromhex("fe80" + "00" * 6) + bytes([m[0] ^ 2]) + m[1:3] + b"\xff\xfe" + m[3:] for m in macs
        ]
        for address in [*groups, *own]:
            yield to, 0x86DD, ipv6(address, 128, b"\0" * 8)
            yield to, 0x86DD, ipv6(address, 135, b"\0" * 4 + address)
            yield to, 0x86DD, ipv6(address, 133, b"\0" * 4)
    for to, kind in (
        ("0180c2000000", 0x0026),
        ("0180c2000001", 0x8808),
        ("0180c2000002", 0x8809),
        ("0180c2000003", 0x888E),
        ("0180c200000e", 0x88CC),
        ("01000ccccccc", 0x2000),
        ("ffffffffffff", 0x0842),
        ("ffffffffffff", 0x9000),
        ("ffffffffffff", 0x8137),
        ("ffffffffffff", 0x88A2),
    ):
        yield bytes.fromhex(to), kind, bytes(46)


def main(interface, prefix, *macs):
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    link.bind((interface, ETH_P_ALL))
    link.setblocking(False)
    came = []

    def listen():
        while True:
            try:
                frame, about = link.recvfrom(2048)
            except BlockingIOError:
                return
            if about[2] != PACKET_OUTGOING:
                came.append(frame)

    sent = 0
    for to, kind, payload in frames(prefix, [mac(text) for text in macs], 1):
        frame = to + OWN + struct.pack(">H", kind) + payload
        for _ in range(1000):
            try:
                link.send(frame.ljust(60, b"\0"))
                break
            except (BlockingIOError, OSError):
                time.sleep(0.001)
        sent += 1
        if sent % 32 == 0:
            listen()
            time.sleep(0.005)
    end = time.monotonic() + 5
    while time.monotonic() < end:
        listen()
        time.sleep(0.05)
    print("sent", sent)
    for frame in came:
        print(frame[:64].hex())


def write(path, own, prefix, *macs):
    global OWN
    OWN = mac(own)
    count = 0
    with open(path, "wb") as file:
        for to, kind, payload in frames(prefix, [mac(text) for text in macs], 2):
            frame = (to + OWN + struct.pack(">H", kind) + payload).ljust(60, b"\0")
            file.write(struct.pack("<H", len(frame)) + frame)
            count += 1
    print("written", count)


if sys.argv[1] == "write":
    write(*sys.argv[2:])
else:
    main(*sys.argv[1:])
