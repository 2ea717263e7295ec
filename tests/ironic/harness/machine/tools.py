"""Programs that a ramdisk with a distribution in it has from its init system, and those that have to wait for device nodes.

Only ironic-python-agent needs them: Ferric's own ramdisk holds no program but the agent.
"""

import os
import shutil
import sys
from pathlib import Path

from .. import syscalls
from . import settle
from .root import PRIVATE, put

_SETTLE = f"{sys.executable} -S -E {Path(settle.__file__).resolve()}"
_UDEVADM = f"""#!/bin/sh
case "$1" in
 settle|trigger|control) exec {_SETTLE} ;;
 *) exec {PRIVATE}/real/udevadm "$@" ;;
esac
"""
# On an ordinary kernel the nodes are there when these return.
_CHANGE_TABLES = ("sgdisk", "sfdisk", "parted", "partprobe", "partx", "blockdev", "addpart", "delpart", "wipefs")
_THEN_SETTLE = """#!/bin/sh
{real} "$@"
status=$?
{settle}
exit $status
"""
_REBOOT = {"poweroff": "0x4321FEDC", "halt": "0xCDEF0123", "reboot": "0x1234567", "shutdown": "0x4321FEDC"}
_SWITCH = """#!/bin/sh
sync
exec {python} -c 'import ctypes, os; os.sync(); ctypes.CDLL(None).reboot({code})'
"""
# There is no journal, and a container runtime would make the agent load a hardware manager that is not under test.
_HIDDEN = ("journalctl", "docker", "podman")


def install_tools():
    _replace("udevadm", _UDEVADM)
    for name in _CHANGE_TABLES:
        _replace(name, _THEN_SETTLE.format(real=f"{PRIVATE}/real/{name}", settle=_SETTLE))
    for name, code in _REBOOT.items():
        for folder in ("/usr/sbin", "/usr/local/sbin"):
            Path(folder, name).unlink(missing_ok=True)
            _program(f"{folder}/{name}", _SWITCH.format(python=sys.executable, code=code))
    for name in _HIDDEN:
        path = shutil.which(name)
        if path:
            os.unlink(path)


def _replace(name, text):
    """Puts a program in the place of another, which stays at hand as `real/NAME`."""
    path = shutil.which(name)
    if not path:
        return
    path = os.path.realpath(path)
    put(f"{PRIVATE}/real/{name}", "")
    syscalls.bind(path, f"{PRIVATE}/real/{name}")
    _program(f"{PRIVATE}/stand-in/{name}", text)
    syscalls.bind(f"{PRIVATE}/stand-in/{name}", path)


def _program(path, text):
    put(path, text)
    os.chmod(path, 0o755)
