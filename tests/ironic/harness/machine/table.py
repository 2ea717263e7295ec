"""Reads partition tables off a disk: what a kernel's own parsers would find. Kernels made for containers have none."""

import os
import struct

_SECTOR = 512
_EXTENDED = (0x05, 0x0F, 0x85)
_PROTECTIVE = 0xEE
_MOST_LOGICAL = 64


def read_table(device):
    """`{number: (first sector, sectors)}`, in sectors of 512 bytes."""
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _Disk(descriptor).partitions()
    finally:
        os.close(descriptor)


class _Disk:
    def __init__(self, descriptor):
        self._descriptor = descriptor
        self._sectors = os.lseek(descriptor, 0, os.SEEK_END) // _SECTOR

    def partitions(self):
        head = self._read(0)
        if len(head) < _SECTOR or head[510:] != b"\x55\xaa":
            return {}
        entries = [struct.unpack_from("<B3xB3xII", head, 446 + 16 * n) for n in range(4)]
        if any(kind == _PROTECTIVE for _, kind, _, _ in entries):
            return self._gpt(1) or self._gpt(self._sectors - 1) or {}
        if any(flag not in (0, 0x80) for flag, _, _, _ in entries):
            return {}  # the boot sector of a file system
        return self._mbr(entries)

    def _read(self, sector, count=1):
        if not 0 <= sector < self._sectors:
            return b""
        return os.pread(self._descriptor, _SECTOR * count, sector * _SECTOR)

    def _gpt(self, at):
        header = self._read(at)
        if header[:8] != b"EFI PART":
            return None
        first, count, size = struct.unpack_from("<QII", header, 72)
        if not 128 <= size <= 4096 or not 0 < count <= 1024:
            return None
        raw = self._read(first, (count * size + _SECTOR - 1) // _SECTOR)
        found = {}
        for number in range(count):
            entry = raw[number * size : (number + 1) * size]
            if len(entry) >= 128 and any(entry[:16]):
                start, end = struct.unpack_from("<QQ", entry, 32)
                if start <= end < self._sectors:
                    found[number + 1] = (start, end - start + 1)
        return found

    def _mbr(self, entries):
        found = {}
        for number, (_, kind, start, sectors) in enumerate(entries, 1):
            if not kind or not sectors or start + sectors > self._sectors:
                continue
            if kind in _EXTENDED:
                found[number] = (start, min(2, sectors))  # all that a kernel shows of a container
                found.update(enumerate(self._logical(start), 5))
            else:
                found[number] = (start, sectors)
        return found

    def _logical(self, container):
        at = container
        for _ in range(_MOST_LOGICAL):
            sector = self._read(at)
            if len(sector) < _SECTOR or sector[510:] != b"\x55\xaa":
                return
            (_, kind, start, sectors), (_, link, offset, length) = (
                struct.unpack_from("<B3xB3xII", sector, 446 + 16 * n) for n in range(2)
            )
            if kind and sectors:
                yield (at + start, sectors)
            if not link or not length:
                return
            at = container + offset
