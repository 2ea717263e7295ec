"""Keeps the kernel's partitions, the device nodes and sysfs in step with the table on the disk."""

import ctypes
import fcntl
import os
import shutil
import stat
import struct
from dataclasses import dataclass

from .hardware import DISK, DISK_FOLDER, copy_attributes, kernel_folder
from .root import PRIVATE, get, link, make_node, put
from .table import read_table

LIST = PRIVATE + "/partitions"
"""Stands at /proc/partitions."""
_BLKPG, _ADD, _DELETE = 0x1269, 1, 2


@dataclass(frozen=True)
class Partition:
    """One that the kernel knows."""

    number: int
    start: int
    sectors: int
    device: tuple
    """Major and minor."""
    folder: str
    """What the kernel says about it."""

    @property
    def name(self):
        return f"{DISK}{self.number}"


class Partitions:
    def __init__(self, loop, number, permit, log):
        self._loop, self._device, self._permit, self._log = os.path.basename(loop), number, permit, log
        self._kernel = kernel_folder(loop)
        self._published = None

    def refresh(self):
        """Returns the partitions there are now."""
        for _ in range(5):
            if not self._tell_kernel():
                break
        partitions = self._known()
        if partitions != self._published:
            self._permit([partition.device for partition in partitions])
            self._publish(partitions)
            self._published = partitions
        return partitions

    def _known(self):
        found = []
        for name in os.listdir(self._kernel):
            folder = f"{self._kernel}/{name}"
            if name.startswith(self._loop + "p") and os.path.exists(folder + "/partition"):
                try:
                    number, start, sectors = (int(get(f"{folder}/{file}")) for file in ("partition", "start", "size"))
                    device = tuple(map(int, get(folder + "/dev").split(":")))
                except ValueError:
                    continue  # it went away in between
                found.append(Partition(number, start, sectors, device, folder))
        return sorted(found, key=lambda partition: partition.number)

    def _tell_kernel(self):
        """Whether anything had to be changed."""
        wanted = read_table(f"/dev/{DISK}")
        known = {partition.number: (partition.start, partition.sectors) for partition in self._known()}
        gone = [number for number, place in known.items() if wanted.get(number) != place]
        new = [number for number, place in wanted.items() if known.get(number) != place]
        if not gone and not new:
            return False
        descriptor = os.open(f"/dev/{DISK}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            for number in gone:
                self._change(descriptor, _DELETE, number, 0, 0)
            for number in new:
                start, sectors = wanted[number]
                self._change(descriptor, _ADD, number, start * 512, sectors * 512)
        finally:
            os.close(descriptor)
        self._log(f"partitions now: {[partition.number for partition in self._known()]}")
        return True

    def _change(self, descriptor, operation, number, start, length):
        partition = ctypes.create_string_buffer(struct.pack("=qqi64s64s4x", start, length, number, b"", b""))
        size = len(partition) - 1
        argument = struct.pack("iiiP", operation, 0, size, ctypes.addressof(partition))
        try:
            fcntl.ioctl(descriptor, _BLKPG, argument)
        except OSError as error:
            what = "adding" if operation == _ADD else "removing"
            self._log(f"{what} partition {number}: {error}")

    def _publish(self, partitions):
        names = {partition.name for partition in partitions}
        for name in os.listdir(DISK_FOLDER):
            if _is_partition(name) and name not in names:
                shutil.rmtree(f"{DISK_FOLDER}/{name}")
        for name in os.listdir("/sys/class/block"):
            if name != DISK:
                os.unlink(f"/sys/class/block/{name}")
        for name in os.listdir("/sys/dev/block"):
            if name != "%d:%d" % self._device:
                os.unlink(f"/sys/dev/block/{name}")
        for name in os.listdir("/dev"):
            if _is_partition(name) and name not in names:
                os.unlink(f"/dev/{name}")
        sequence = get(self._kernel + "/diskseq", "1").strip()
        for partition in partitions:
            self._describe(partition, sequence)
        sectors = int(get(self._kernel + "/size", "0"))
        lines = [(*self._device, sectors // 2, DISK)]
        lines += [(*partition.device, partition.sectors // 2, partition.name) for partition in partitions]
        put(LIST, "major minor  #blocks  name\n\n" + "".join("%4d %7d %10d %s\n" % line for line in lines))

    @staticmethod
    def _describe(partition, sequence):
        folder = f"{DISK_FOLDER}/{partition.name}"
        major, minor = partition.device
        copy_attributes(partition.folder, folder)
        put(
            folder + "/uevent",
            f"MAJOR={major}\nMINOR={minor}\nDEVNAME={partition.name}\nDEVTYPE=partition\nDISKSEQ={sequence}\n"
            f"PARTN={partition.number}\n",
        )
        os.makedirs(folder + "/holders", exist_ok=True)
        link("/sys/class/block", folder + "/subsystem")
        target = f"../../devices/{folder[len('/sys/devices/'):]}"
        link(target, f"/sys/class/block/{partition.name}")
        link(target, f"/sys/dev/block/{major}:{minor}")
        make_node(f"/dev/{partition.name}", stat.S_IFBLK, major, minor, 0o660)


def _is_partition(name):
    return name.startswith(DISK) and name[len(DISK) :].isdigit()
