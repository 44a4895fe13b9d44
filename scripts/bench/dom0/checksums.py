"""Has dom0 put whole checksums into what it sends through a device.

    checksums.py DEVICE

It leaves that to a NIC, and a packet that never leaves the host has none: the other end of a vif is told so. MiniOS does not
ask, and QEMU of 2009 hands the packet to the guest as it is, which drops it. What ethtool -K DEVICE tx off does, without ethtool.
"""

import array
import fcntl
import socket
import struct
import sys

SIOCETHTOOL = 0x8946
ETHTOOL_STXCSUM = 0x17

value = array.array("B", struct.pack("II", ETHTOOL_STXCSUM, 0))
request = struct.pack("16sP16x", sys.argv[1].encode(), value.buffer_info()[0])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, SIOCETHTOOL, request)
