"""The machine's disk: a sparse file behind a loop device. Looks into it without mounting anything."""

import json
import os
import subprocess

from .images import MEBIBYTE
from .layout import DISK_BYTES

_MARK = b"a tenant's secret" * 30
_MARK_OFFSET, _MARK_DISTANCE = 5 * MEBIBYTE, 16 * MEBIBYTE


class Disk:
    def __init__(self, image):
        self._image = image
        self.loop = None
        """The loop device, once attached."""

    def attach(self):
        self.remove()
        with open(self._image, "wb") as file:
            file.truncate(DISK_BYTES)
        self.loop = _output("losetup", "--find", "--show", "--partscan", self._image).strip()

    def remove(self):
        """Removes the file, and every loop device on it, also one from an earlier run."""
        for device in _devices_of(self._image):
            # The partitions first: a kernel without parsers does not do it by itself.
            subprocess.run(["partx", "-d", device], capture_output=True)
            subprocess.run(["losetup", "-d", device], capture_output=True)
        self._image.unlink(missing_ok=True)
        self.loop = None

    def blank(self):
        """Forgets everything. The machine must be off."""
        self._drop_partitions()
        _output("blkdiscard", "--force", self._safe_loop())
        with open(self._image, "r+b") as file:
            file.write(bytes(MEBIBYTE))

    def fill_with_old_system(self):
        """A GPT with two partitions, one with a file system. The machine must be off."""
        self.blank()
        _output("sgdisk", "-n", "1:2048:+64M", "-n", "2:0:+64M", self._image)
        _output("mkfs.ext4", "-q", "-F", "-E", f"offset={2048 * 512}", self._image, "65536")

    def scatter_marks(self):
        """Writes a recognisable block in every 16 MiB."""
        with open(self._image, "r+b") as file:
            for offset in range(_MARK_OFFSET, DISK_BYTES, _MARK_DISTANCE):
                file.seek(offset)
                file.write(_MARK)

    def marks_left(self):
        """Offsets at which a mark, or anything but zeros, can still be read."""
        offsets = range(_MARK_OFFSET, DISK_BYTES, _MARK_DISTANCE)
        return [offset for offset in offsets if self.read(offset, len(_MARK)) != bytes(len(_MARK))]

    def partitions(self):
        """Of each partition: start and size in bytes, and what is in it (`fs`, `label`, `uuid`)."""
        result = subprocess.run(["sfdisk", "--json", self._image], capture_output=True, text=True)
        if result.returncode or not result.stdout:
            return []
        found = []
        for partition in json.loads(result.stdout)["partitiontable"].get("partitions", []):
            start, size = partition["start"] * 512, partition["size"] * 512
            content = self._probe(start, size)
            fields = {"fs": content.get("TYPE"), "label": content.get("LABEL"), "uuid": content.get("UUID")}
            found.append({"start": start, "size": size, "type": partition["type"], **fields})
        return found

    def signatures(self):
        """What blkid recognises on the disk as a whole: empty when it is clean."""
        return self._probe(0, DISK_BYTES)

    def partition(self, **wanted):
        """The one partition whose fields are these, or none."""
        found = [part for part in self.partitions() if all(part[key] == value for key, value in wanted.items())]
        return found[0] if len(found) == 1 else None

    def read_file(self, file_system, path):
        """A file of the ext4 file system with this UUID; none if there is no such file system, empty if no such file."""
        partition = self.partition(uuid=file_system)
        if partition is None:
            return None
        return self._debugfs(partition, f"cat {path}")

    def describe_file(self, file_system, path):
        """What debugfs says about a file: type, mode, owner."""
        partition = self.partition(uuid=file_system)
        return self._debugfs(partition, f"stat {path}").decode() if partition else ""

    def read(self, offset, size):
        with open(self._image, "rb") as file:
            file.seek(offset)
            return file.read(size)

    def differences(self, image, skip=()):
        """Offsets of the MiB that differ from an image, leaving out those within the ranges `skip`."""
        found, offset = [], 0
        with open(self._image, "rb") as disk, open(image, "rb") as wanted:
            while expected := wanted.read(MEBIBYTE):
                if disk.read(len(expected)) != expected:
                    if not any(first <= offset and offset + len(expected) <= last for first, last in skip):
                        found.append(offset)
                offset += len(expected)
        return found

    def _safe_loop(self):
        """The loop device, having made sure that it still is this file's."""
        assert self.loop in _devices_of(self._image), f"{self.loop} is not the device of {self._image}"
        return self.loop

    def _drop_partitions(self):
        subprocess.run(["partx", "-d", self._safe_loop()], capture_output=True)

    def _probe(self, offset, size):
        command = ["blkid", "-p", "-o", "export", "-O", str(offset), "-S", str(size), self._image]
        output = subprocess.run(command, capture_output=True, text=True).stdout
        return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)

    def _debugfs(self, partition, request):
        command = ["debugfs", "-R", request, f"{self._image}?offset={partition['start']}"]
        return subprocess.run(command, capture_output=True).stdout


def _output(*command):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout


def _devices_of(image):
    if not os.path.exists(image):
        return []
    return _output("losetup", "-j", image, "--noheadings", "-O", "NAME").split()
