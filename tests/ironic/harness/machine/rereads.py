"""Makes "read the partition table again" (BLKRRPART) work as on a kernel with partition parsers: when the call returns, the
partitions and their nodes are there.

The host's kernel may have no parsers, and would drop all partitions. A seccomp filter on the agent, inherited by all that it starts, sends the
call here instead.
"""

import ctypes
import errno
import fcntl
import os
import platform
import socket
import struct

from ..failure import CannotRun

_BLKRRPART = 0x125F
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000
_SET_MODE_FILTER, _NEW_LISTENER = 1, 1 << 3
_NOTIFICATION, _ANSWER = struct.Struct("=QII64x"), struct.Struct("=QqiI")
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
# Architecture as audit names it, then the numbers of seccomp(2) and ioctl(2).
_NUMBERS = {"x86_64": (0xC000003E, 317, 16), "aarch64": (0xC00000B7, 277, 29)}


def divert(to):
    """Puts this process and all its descendants under the filter. `to` is a socket that gets the listening end."""
    if platform.machine() not in _NUMBERS:
        raise CannotRun(f"no system call numbers are known for {platform.machine()}")
    architecture, seccomp, ioctl = _NUMBERS[platform.machine()]
    load, equal, leave = 0x20, 0x15, 0x06  # a word of the call's description; jump if equal; the verdict
    lines = [
        (load, 0, 0, 4),
        (equal, 0, 5, architecture),
        (load, 0, 0, 0),
        (equal, 0, 3, ioctl),
        (load, 0, 0, 24),
        (equal, 0, 1, _BLKRRPART),
        (leave, 0, 0, _NOTIFY),
        (leave, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in lines))
    program = struct.pack("HxxxxxxP", len(lines), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    listener = libc.syscall(seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.create_string_buffer(program))
    if listener < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"seccomp: {os.strerror(number)}")
    socket.send_fds(to, [b"listener"], [listener])
    os.close(listener)


def receive_listener(source):
    """The listening end, from the process that called `divert`."""
    _, descriptors, _, _ = socket.recv_fds(source, 16, 1)
    if not descriptors:
        raise RuntimeError("the agent's calls can not be listened to")
    os.set_blocking(descriptors[0], False)
    return descriptors[0]


def answer(listener, refresh):
    """Does what one call asks for. Whoever made it may have been killed in between."""
    notification = bytearray(_NOTIFICATION.size)
    try:
        fcntl.ioctl(listener, _RECEIVE, notification)
        identity, _, _ = _NOTIFICATION.unpack(notification)
        refresh()
        fcntl.ioctl(listener, _SEND, _ANSWER.pack(identity, 0, 0, 0))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
            raise
