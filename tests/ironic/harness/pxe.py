"""Reads the PXE configuration that Ironic wrote, as pxelinux would."""

import re

from .layout import NODE_MAC

_DEPLOY = "deploy"


def kernel_command_line(tftp_root):
    """`(command line, file)`. The command line is none where the configuration says to boot from disk, or there is none."""
    dashed = NODE_MAC.replace(":", "-")
    path = tftp_root / "pxelinux.cfg" / f"01-{dashed}"
    if not path.exists():
        return None, None
    text = path.read_text()
    default = re.search(r"^default (\S+)", text, re.MULTILINE)
    if not default or default.group(1) != _DEPLOY:
        return None, path
    block = text.split(f"label {_DEPLOY}", 1)[1].split("\nlabel ", 1)[0]
    append = re.search(r"^append (.*)$", block, re.MULTILINE)
    line = append.group(1) if append else ""
    if re.search(r"^ipappend 2", block, re.MULTILINE):
        line += f" BOOTIF=01-{dashed}"
    return line, path
