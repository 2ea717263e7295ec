"""DHCP for one machine: it always gets the same address."""

import socket
import struct
import threading

from .layout import CONTROL_IP, NODE_IP, NODE_MAC
from .network import CONTROL_LINK

_COOKIE = b"\x63\x82\x53\x63"
_DISCOVER, _OFFER, _REQUEST, _ACK = 1, 2, 3, 5
_LEASE_SECONDS = 86400


def serve():
    """Starts the server in the background. Call it in the control namespace."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, CONTROL_LINK.encode() + b"\0")
    server.bind(("", 67))
    threading.Thread(target=_answer, args=(server,), daemon=True).start()


def _answer(server):
    mac = bytes.fromhex(NODE_MAC.replace(":", ""))
    while True:
        packet, _ = server.recvfrom(2048)
        if len(packet) < 244 or packet[0] != 1 or packet[28:34] != mac or packet[236:240] != _COOKIE:
            continue
        kind = {_DISCOVER: _OFFER, _REQUEST: _ACK}.get(_message_type(packet))
        if kind:
            server.sendto(_reply(packet, kind), ("255.255.255.255", 68))


def _message_type(packet):
    at = 240
    while at + 2 < len(packet) and packet[at] != 255:
        if packet[at] == 0:
            at += 1
            continue
        if packet[at] == 53:
            return packet[at + 2]
        at += 2 + packet[at + 1]
    return None


def _reply(packet, kind):
    server, client = socket.inet_aton(CONTROL_IP), socket.inet_aton(NODE_IP)
    options = (
        (53, bytes([kind])),
        (54, server),
        (51, struct.pack(">I", _LEASE_SECONDS)),
        (1, socket.inet_aton("255.255.255.0")),
        (3, server),
        (12, b"node-0"),
    )
    encoded = b"".join(struct.pack("BB", code, len(value)) + value for code, value in options) + b"\xff"
    head = struct.pack(">BBBB", 2, 1, 6, 0) + packet[4:12] + packet[12:16] + client + server + bytes(4)
    return (head + packet[28:44] + bytes(192) + _COOKIE + encoded).ljust(300, b"\0")
