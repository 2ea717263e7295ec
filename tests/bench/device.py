"""The disk that is written: a loop device over a file in memory, which a run finds full of 0xA5."""

import mmap
import subprocess

MIB = 1 << 20
SPARE = 256 * MIB
"""How much the disk is larger than the image: what lies behind an image is no writer's business."""
FILL = b"\xa5" * (4 * MIB)
TABLES = 1024
"""Bytes at the start that a writer may mend after writing (the protective MBR and the GPT header, for the size of the disk)."""


class Device:
    """Made, filled, compared and removed."""

    def __init__(self, file, image):
        """`file`: where it will be, in memory. `image`: the raw image that will be written."""
        self._file, self._image = file, image
        self.size = image.stat().st_size + SPARE
        self.path = None

    def __enter__(self):
        try:
            self.fill()
            loop = subprocess.run(
                ["losetup", "--find", "--show", str(self._file)], check=True, capture_output=True, text=True
            )
            self.path = loop.stdout.strip()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if self.path:
            subprocess.run(["losetup", "--detach", self.path], check=False)
        self._file.unlink(missing_ok=True)

    def fill(self):
        """Every byte becomes 0xA5: a writer that skips zeroes without zeroing is found out. The memory is taken here, not in a run."""
        with open(self._file, "r+b" if self._file.exists() else "w+b", buffering=0) as file:
            for at in range(0, self.size, len(FILL)):
                file.write(FILL[: self.size - at])
        if self.path:
            self.flush()

    def flush(self):
        """What was written is on the device, and no longer in a cache."""
        subprocess.run(["blockdev", "--flushbufs", self.path], check=True)

    def holds_image(self):
        """Whether the device holds the image, byte for byte; but for its partition table, which a writer may mend."""
        size = self._image.stat().st_size
        with open(self._image, "rb") as image, open(self._file, "rb") as disk:
            with (
                mmap.mmap(image.fileno(), size, prot=mmap.PROT_READ) as left,
                mmap.mmap(disk.fileno(), size, prot=mmap.PROT_READ) as right,
            ):
                first, last = TABLES, size - MIB
                step = 4 * MIB
                return all(
                    left[at : min(at + step, last)] == right[at : min(at + step, last)] for at in range(first, last, step)
                )
