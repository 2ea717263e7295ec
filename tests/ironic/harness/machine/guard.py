"""Keeps the machine off every device of the host but its own disk.

A device cgroup decides, in the kernel, on every `open` and `mknod`, whatever nodes a program finds or makes. The allow-list
names single device numbers: partitions of the machine's disk share their major number with NVMe disks, so a wildcard would not do.
"""

import ctypes
import os
import platform
import struct
from pathlib import Path

from ..failure import CannotRun

CHARACTER_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (136, None))
"""null, zero, full, random, urandom, tty, console, ptmx and every pseudo terminal."""


def make_guard(name):
    """The guard that this kernel offers; the calling process is under it from now on, and so is all it starts."""
    unified = _mount_point("cgroup2", "")
    reasons = []
    for kind, base in ((_BpfGuard, unified), (_ListGuard, _mount_point("cgroup", "devices"))):
        if base is None:
            continue
        try:
            return kind(base / name)
        except OSError as error:
            reasons.append(str(error))
    raise CannotRun(
        "no device cgroup to keep the agent off this machine's own disks: "
        + ("; ".join(reasons) or "no cgroup file system is mounted")
    )


def remove_guards(name):
    """Removes what an earlier run left behind."""
    for base in (_mount_point("cgroup2", ""), _mount_point("cgroup", "devices")):
        try:
            if base is not None:
                os.rmdir(base / name)
        except OSError:
            pass  # not there, or still in use by processes that are about to end


def _mount_point(filesystem, option):
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options = line.split(" ")[:4]
        if kind == filesystem and (not option or option in options.split(",")):
            return Path(target)
    return None


def _enter(cgroup):
    cgroup.mkdir(exist_ok=True)
    (cgroup / "cgroup.procs").write_text(str(os.getpid()))


class _ListGuard:
    """The devices controller of cgroup version 1."""

    def __init__(self, cgroup):
        self._cgroup = cgroup
        self._allowed = set()
        cgroup.mkdir(exist_ok=True)
        (cgroup / "devices.deny").write_text("a")
        for major, minor in CHARACTER_DEVICES:
            (cgroup / "devices.allow").write_text(f"c {major}:{'*' if minor is None else minor} rwm")
        _enter(cgroup)

    def allow_disks(self, numbers):
        """Exactly these block devices may be opened."""
        numbers = set(numbers)
        for file, changed in (("devices.allow", numbers - self._allowed), ("devices.deny", self._allowed - numbers)):
            for major, minor in changed:
                (self._cgroup / file).write_text(f"b {major}:{minor} rwm")
        self._allowed = numbers


class _BpfGuard:
    """A program on a cgroup of version 2; attaching the next one replaces it."""

    def __init__(self, cgroup):
        self._cgroup = cgroup
        cgroup.mkdir(exist_ok=True)
        self.allow_disks(())
        _enter(cgroup)

    def allow_disks(self, numbers):
        """Exactly these block devices may be opened."""
        rules = [(_CHARACTER, major, minor) for major, minor in CHARACTER_DEVICES]
        rules += [(_BLOCK, major, minor) for major, minor in numbers]
        program = _load(_program(rules))
        cgroup = os.open(self._cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _bpf(_PROG_ATTACH, struct.pack("=IIII", cgroup, program, _CGROUP_DEVICE_ATTACH, 0))
        finally:
            os.close(cgroup)
            os.close(program)


_PROG_LOAD, _PROG_ATTACH = 5, 8
_CGROUP_DEVICE_PROGRAM, _CGROUP_DEVICE_ATTACH = 15, 6
_BLOCK, _CHARACTER = 1, 2
_SYSTEM_CALL = {"x86_64": 321, "aarch64": 280}


def _program(rules):
    """Answers 1 for a device that a rule names, else 0. Its argument is `{access << 16 | kind, major, minor}`."""
    load, mask, unless, move, leave = 0x61, 0x54, 0x55, 0xB7, 0x95

    def instruction(code, target=0, source=0, offset=0, value=0):
        return struct.pack("=BBhi", code, source << 4 | target, offset, value)

    code = [instruction(load, target=2 + n, source=1, offset=4 * n) for n in range(3)]
    code.append(instruction(mask, target=2, value=0xFFFF))
    for kind, major, minor in rules:
        checks = [(2, kind), (3, major)] + ([] if minor is None else [(4, minor)])
        for done, (register, value) in enumerate(checks):
            code.append(instruction(unless, target=register, offset=len(checks) - done + 1, value=value))
        code += [instruction(move, value=1), instruction(leave)]
    return b"".join(code + [instruction(move, value=0), instruction(leave)])


def _load(program):
    text, license_text = ctypes.create_string_buffer(program, len(program)), ctypes.create_string_buffer(b"Apache")
    addresses = ctypes.addressof(text), ctypes.addressof(license_text)
    return _bpf(_PROG_LOAD, struct.pack("=IIQQ", _CGROUP_DEVICE_PROGRAM, len(program) // 8, *addresses))


def _bpf(command, attributes):
    number = _SYSTEM_CALL.get(platform.machine())
    if number is None:
        raise OSError(f"no number of bpf(2) is known for {platform.machine()}")
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(number, command, buffer, 128)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"bpf: {os.strerror(error)}")
    return result
