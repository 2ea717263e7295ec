"""The images that are deployed: small, made once, and shared by all instances.

    whole.raw     256 MiB: GPT, BIOS boot partition, ext4 root; data in it that does not compress
    whole.qcow2   the same
    part.raw      64 MiB: an ext4 root with a shell and a stand-in for GRUB, which leaves a trace when it runs
    part.qcow2    the same, compressed
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from .process import exclusively

ROOT_UUID = "11111111-2222-4333-8444-555555555555"
"""Of the root file system in the whole-disk images."""
PARTITION_UUID = "11111111-2222-4333-8444-666666666666"
"""Of the partition images."""
MEBIBYTE = 1 << 20
WHOLE_BYTES = 256 * MEBIBYTE
_ROOT_OFFSET, _ROOT_BYTES = 4 * MEBIBYTE, 160 * MEBIBYTE
_BULK_BYTES = 64 * MEBIBYTE
_PART_BYTES, _PART_BULK = 64 * MEBIBYTE, 16 * MEBIBYTE

# Anything that finds its way into the image must be static.
_GRUB_INSTALL = """#!/bin/sh
echo "grub-install $*" >> /boot/grub-install.log
for word in "$@"; do case $word in --version) echo "grub-install (GRUB) 2.06"; exit 0;; esac; done
exit 0
"""
_GRUB_MKCONFIG = """#!/bin/sh
echo "grub-mkconfig $*" >> /boot/grub-install.log
[ "$1" = -o ] && echo '# made by the stand-in' > "$2"
exit 0
"""


class Images:
    def __init__(self, folder):
        self.folder = folder

    def path(self, name):
        return self.folder / name

    def digest(self, name, algorithm="sha256"):
        return (self.folder / f"{name}.{algorithm}").read_text().strip()

    def prepare(self, say):
        """Makes what is missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with exclusively(self.folder / ".lock"):
            for name, make in (
                ("whole.raw", _whole),
                ("whole.qcow2", lambda path: _qcow2(self.path("whole.raw"), path)),
                ("part.raw", _part),
                ("part.qcow2", lambda path: _qcow2(self.path("part.raw"), path, "-c")),
                # Ironic copies these for PXE; nobody boots them.
                ("deploy.kernel", lambda path: path.write_text("kernel\n")),
                ("deploy.ramdisk", lambda path: path.write_text("ramdisk\n")),
            ):
                if not self.path(name).exists():
                    say(f"making {name}")
                    self._make(name, make)

    def _make(self, name, make):
        unfinished = self.path(name + ".new")
        unfinished.unlink(missing_ok=True)
        make(unfinished)
        for algorithm in ("sha256", "sha512"):
            with open(unfinished, "rb") as file:
                digest = hashlib.file_digest(file, algorithm).hexdigest()
            self.path(f"{name}.{algorithm}").write_text(digest + "\n")
        unfinished.rename(self.path(name))


def _run(*command):
    subprocess.run([str(word) for word in command], check=True, capture_output=True)


def _noise(path, size):
    path.write_bytes(os.urandom(size))


def _ext4(path, size, label, uuid, tree):
    with open(path, "wb") as file:
        file.truncate(size)
    _run("mkfs.ext4", "-q", "-F", "-L", label, "-U", uuid, "-d", tree, path)


def _marked_tree(tree, folders):
    for folder in ("etc", "boot", "bulk", *folders):
        (tree / folder).mkdir(parents=True, exist_ok=True)
    (tree / "etc/os-release").write_text("ID=harness\n")
    (tree / "etc/marker").write_text("harness-root\n")


def _whole(path):
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        tree, root = Path(folder, "tree"), Path(folder, "root")
        _marked_tree(tree, ())
        _noise(tree / "bulk/noise", _BULK_BYTES)
        _ext4(root, _ROOT_BYTES, "harnessroot", ROOT_UUID, tree)
        with open(path, "wb") as file:
            file.truncate(WHOLE_BYTES)
        _run("sgdisk", "-o", "-n", "1:2048:+1M", "-t", "1:ef02", "-n", f"2:{_ROOT_OFFSET // 512}:+200M", "-t", "2:8300", path)
        with open(path, "r+b") as disk, open(root, "rb") as source:
            disk.seek(_ROOT_OFFSET)
            shutil.copyfileobj(source, disk, MEBIBYTE)
            # Behind the file system as well, so that a raw image is not mostly holes.
            disk.seek(220 * MEBIBYTE)
            disk.write(os.urandom(32 * MEBIBYTE))


def _part(path):
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        tree = Path(folder, "tree")
        folders = ("bin", "sbin", "usr/bin", "usr/sbin", "etc/default", "boot/grub", "boot/efi")
        _marked_tree(tree, (*folders, "proc", "sys", "dev", "run", "tmp", "var/log"))
        shutil.copy(shutil.which("busybox"), tree / "bin/busybox")
        for name in ("sh", "ls", "cat", "cp", "mkdir", "mount", "umount", "echo", "touch"):
            (tree / "bin" / name).symlink_to("busybox")
        for name, text in (("grub-install", _GRUB_INSTALL), ("grub-mkconfig", _GRUB_MKCONFIG)):
            (tree / "usr/sbin" / name).write_text(text)
            (tree / "usr/sbin" / name).chmod(0o755)
        (tree / "etc/fstab").touch()
        (tree / "etc/default/grub").write_text("GRUB_TIMEOUT=1\n")
        _noise(tree / "bulk/noise", _PART_BULK)
        _ext4(path, _PART_BYTES, "harnesspart", PARTITION_UUID, tree)


def _qcow2(source, path, *options):
    _run("qemu-img", "convert", *options, "-O", "qcow2", source, path)
