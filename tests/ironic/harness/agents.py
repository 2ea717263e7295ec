"""The programs that are tried: the reference, Ferric's own build, or any file."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import venv
from .failure import CannotRun
from .layout import REPOSITORY

REFERENCE = "ipa"
_IPA_SCRIPT = """
mkdir -p /etc/ironic-python-agent /etc/ipa-rescue-config
printf '[DEFAULT]\\ndebug = true\\nuse_syslog = false\\nlog_file =\\n' >/etc/ironic-python-agent/harness.conf
exec {program} --config-file /etc/ironic-python-agent/harness.conf --debug
"""


@dataclass(frozen=True)
class Agent:
    """What runs in the machine."""

    name: str
    """Names the folder of its transcripts: `ipa` or `ferric`."""
    kind: str
    """How it is started; see `machine/agent.py`."""
    program: Path = None

    @property
    def is_reference(self):
        return self.name == REFERENCE

    def specification(self, layout):
        """For the machine: the kind, the command, and the files of its ramdisk."""
        if self.is_reference:
            program = venv.agent_folder(layout) / "bin/ironic-python-agent"
            return {"kind": self.kind, "command": ["/bin/sh", "-c", _IPA_SCRIPT.format(program=program)]}
        files = {str(self.program): "/init", **{library: library for library in _libraries(self.program)}}
        return {"kind": self.kind, "command": ["/init"], "files": files}


def find_agent(choice):
    """`ipa`, `ferric` (what `make build` has built) or the path of a program."""
    if choice == REFERENCE:
        return Agent(REFERENCE, "service")
    program = REPOSITORY / "dist/ferric-agent" if choice == "ferric" else Path(choice)
    if not program.is_file() or not os.access(program, os.X_OK):
        advice = "run `make build` first" if choice == "ferric" else "give ipa, ferric or the path of a program"
        raise CannotRun(f"no agent at {program}: {advice}")
    return Agent("ferric", "init", program.resolve())


def _libraries(program):
    """Shared libraries of a program that is not static, such as a debug build; a real ramdisk would refuse it."""
    output = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return sorted({word for line in output.splitlines() for word in line.split() if word.startswith("/") and ".so" in word})
