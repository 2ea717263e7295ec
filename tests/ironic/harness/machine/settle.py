"""Waits until the machine's device nodes are in step with its disk; run as a program, it is `udevadm settle`."""

import socket

SOCKET = "/run/harness/settle.sock"
_LIMIT_SECONDS = 60


def settle():
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(SOCKET)
        client.settimeout(_LIMIT_SECONDS)
        client.recv(1)
    except OSError:
        pass  # as udevadm does when udevd is gone


if __name__ == "__main__":
    settle()
