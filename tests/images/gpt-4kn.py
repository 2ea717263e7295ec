"""Rewrites the GPT of a disk image that was made for sectors of 512 bytes to one for sectors of 4096 bytes.

    gpt-4kn.py DISK

No partition moves: every start and length must be whole sectors of either size. `sgdisk` and `sfdisk` can do this to a device
alone, and the image is made without one.
"""

import struct
import sys
import zlib

OLD, NEW = 512, 4096
ENTRIES, ENTRY = 128, 128
# Type, GUID, first and last sector, attributes and name.
ENTRY_FIELDS = struct.Struct("<16s16sQQ80s")
HEADER = struct.Struct("<8s4sIIIQQQQ16sQIII")


def main() -> None:
    with open(sys.argv[1], "r+b") as disk:
        size = disk.seek(0, 2)
        disk.seek(OLD)
        header = HEADER.unpack(disk.read(HEADER.size))
        if header[0] != b"EFI PART" or size % NEW:
            sys.exit(f"{sys.argv[1]}: no GPT in sectors of {OLD} bytes, or no whole sectors of {NEW}")
        guid, table_at = header[9], header[10]
        disk.seek(table_at * OLD)
        table = b"".join(moved(disk.read(ENTRY)) for _ in range(ENTRIES))

        disk.seek(440)
        disk.write((bytes(6) + mbr(size)).ljust(NEW - 440, b"\0"))
        last, table_sectors = size // NEW - 1, len(table) // NEW
        for here, there, entries_at in ((1, last, 2), (last, 1, last - table_sectors)):
            disk.seek(here * NEW)
            disk.write(head(here, there, entries_at, last, table_sectors, guid, table).ljust(NEW, b"\0"))
            disk.seek(entries_at * NEW)
            disk.write(table)


def moved(entry: bytes) -> bytes:
    """An entry with its places in the larger sectors."""
    kind, guid, first, last, rest = ENTRY_FIELDS.unpack(entry)
    if not any(kind):
        return entry
    per = NEW // OLD
    if first % per or (last + 1) % per:
        sys.exit(f"a partition from sector {first} to {last} does not lie on whole sectors of {NEW} bytes")
    return ENTRY_FIELDS.pack(kind, guid, first // per, (last + 1) // per - 1, rest)


def head(here: int, there: int, entries_at: int, last: int, table_sectors: int, guid: bytes, table: bytes) -> bytes:
    """A header with both of its checksums."""
    usable = (2 + table_sectors, last - table_sectors - 1)

    def packed(checksum: int) -> bytes:
        return HEADER.pack(b"EFI PART", b"\0\0\1\0", HEADER.size, checksum, 0, here, there, *usable, guid,
                           entries_at, ENTRIES, ENTRY, zlib.crc32(table))

    return packed(zlib.crc32(packed(0)))


def mbr(size: int) -> bytes:
    """The protective MBR from the first entry on."""
    sectors = min(size // NEW - 1, 0xFFFFFFFF)
    entry = b"\0\0\2\0\xee\xff\xff\xff" + struct.pack("<II", 1, sectors)
    return entry.ljust(64, b"\0") + b"\x55\xaa"


main()
