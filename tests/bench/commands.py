"""What is measured: Ferric, its peers, and the machine's own limits, as shell commands.

Placeholders: `{url}`, `{file}` (the same image on this machine), `{digest}` (SHA-256), `{disk}`, `{bytes}` (of the disk image),
`{data_mib}` (of them, what is not zero), `{spool}` (an empty folder in memory, as a ramdisk's /tmp).
"""

import os
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent

RAW = ("raw",)
QCOW2 = ("qcow2", "qcow2-zlib", "qcow2-zstd")
PACKED = ("gz", "zst", "xz")
FORMATS = (*RAW, *QCOW2, *PACKED)

DECODER = {"raw": "", "gz": "gzip -dc |", "zst": "zstd -dcq |", "xz": "xz -dc |"}


@dataclass(frozen=True)
class Command:
    """A way to put an image onto a disk, or a single stage of it."""

    name: str
    formats: tuple
    line: str
    verifies: bool = False
    """Whether it compares a digest."""
    writes: bool = True
    """Whether it leaves the image on the disk."""


def ferric(program):
    return Command(
        "Ferric",
        FORMATS,
        f"{shlex.quote(str(program))} write --disks $(basename {{disk}}) --url {{url}} --sha256 {{digest}} {{disk}}",
        verifies=True,
    )


def peers(reference_python, coreos_installer):
    """The others, as far as they are there."""
    found = []
    if reference_python:
        found.append(
            Command(
                "ironic-python-agent",
                (*RAW, *QCOW2),
                f"PATH={HERE}/quiet:$PATH BENCH_DISK={{disk}} {shlex.quote(str(reference_python))} {HERE}/reference_agent.py "
                "{url} {digest} {form} {disk}",
                verifies=True,
            )
        )
    found += [
        Command(
            "curl, tee, sha256, qemu-img",
            QCOW2,
            "set -e; curl -sSf {url} | tee >(openssl dgst -sha256 -r | cut -c1-64 >{spool}/sum) >{spool}/image; wait $!; "
            "while [ ! -s {spool}/sum ]; do sleep 0.01; done; [ $(cat {spool}/sum) = {digest} ]; "
            "qemu-img convert -n -f qcow2 -O host_device -t none -T none -W -S 0 {spool}/image {disk}",
            verifies=True,
        ),
        Command(
            "qemu-img convert over http",
            (*RAW, *QCOW2),
            "qemu-img convert -n -f {form} -O host_device -t none -W -S 0 {url} {disk}",
        ),
        Command(
            "curl, tee, sha256, dd",
            (*RAW, *PACKED),
            "set -eo pipefail; curl -sSf {url} | tee >(openssl dgst -sha256 -r | cut -c1-64 >{spool}/sum) | "
            "{decoder} dd of={disk} bs=4M iflag=fullblock oflag=direct status=none; "
            "while [ ! -s {spool}/sum ]; do sleep 0.01; done; [ $(cat {spool}/sum) = {digest} ]",
            verifies=True,
        ),
        Command(
            "curl, dd",
            (*RAW, *PACKED),
            "set -o pipefail; curl -sSf {url} | {decoder} dd of={disk} bs=4M iflag=fullblock oflag=direct status=none",
        ),
    ]
    if coreos_installer:
        found.append(
            Command(
                "coreos-installer",
                (*RAW, *PACKED),
                # It asks udev to settle, where there may be no udev.
                f"PATH={HERE}/quiet:$PATH unshare -m sh -c 'mkdir -p /run/udev && mount -t tmpfs x /run/udev && touch /run/udev/control && "
                f"exec {coreos_installer} install --insecure --image-url {{url}} {{disk}}'",
            )
        )
    return found


def limits():
    """What single stages take, each alone."""
    inflate = {
        "gz": "igzip -dc {file}" if shutil.which("igzip") else "gzip -dc {file}",
        "zst": "zstd -dcq {file}",
        "xz": "xz -dc {file}",
        # All cores, as Ferric has them too: clusters are independent.
        **{
            form: "qemu-img convert -n -W -m 8 -S 0 --image-opts --target-image-opts "
            "driver=qcow2,file.driver=file,file.filename={file} driver=null-co,size={bytes}"
            for form in QCOW2[1:]
        },
    }
    found = [
        Command("network", FORMATS, "curl -sSf -o /dev/null {url}", writes=False),
        Command("hash", FORMATS, "openssl dgst -sha256 {file}", writes=False),
    ]
    found += [Command("inflate", (form,), line + " >/dev/null", writes=False) for form, line in inflate.items()]
    found.append(
        Command(
            "device",
            FORMATS,
            "dd if=/dev/zero of={disk} bs=4M count=$(({data_mib} / 4)) oflag=direct status=none && "
            "blkdiscard -z -o $(({data_mib} / 4 * 4194304)) -l $(({bytes} - {data_mib} / 4 * 4194304)) {disk}",
            writes=False,
        )
    )
    return found


def fill_in(line, **values):
    for name, value in values.items():
        line = line.replace("{" + name + "}", str(value))
    return line


def coreos_installer():
    """Where it is installed, if it is."""
    named = os.environ.get("COREOS_INSTALLER")
    return named or shutil.which("coreos-installer")
