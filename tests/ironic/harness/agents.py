"""The programs that are tried: the reference, Ferric's own build, or any file."""

import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

from . import venv
from .failure import CannotRun
from .layout import HOME, REPOSITORY

REFERENCE = "ipa"
EXTRA_STEP = "update_nothing"
"""Clean step of `with_extra_step`: priority 50, asks for a reboot after it."""
_CONFIGURATION = """[DEFAULT]
enable_bios_bootloader_install = true"""
"""In the ramdisk, as an operator puts it there: Ironic 35.0.1 and 32.0.1 do not send the option, and it has no kernel parameter."""
_RAMDISK_PROGRAMS = ("mkfs.ext4", "mdadm")
"""What an operator adds to Ferric's ramdisk (`ferric-image build --add`, `--with`) for ephemeral partitions and RAID."""
_PLUGIN = HOME / "plugin"
_EXAMPLE = "reboot_step"
_IPA_SCRIPT = """
export PYTHONPATH={plugin}
mkdir -p /etc/ironic-python-agent /etc/ipa-rescue-config
cat >/etc/ironic-python-agent/harness.conf <<END
{configuration}
debug = true
use_syslog = false
log_file =
END
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
    plugin: Path = None
    """A folder with a hardware manager for the reference."""

    @property
    def is_reference(self):
        return self.name == REFERENCE

    def specification(self, layout):
        """For the machine: the kind, the command, and the files of its ramdisk."""
        if self.is_reference:
            program = venv.agent_folder(layout) / "bin/ironic-python-agent"
            return {"kind": self.kind, "command": ["/bin/sh", "-c", _ipa_script(program, self.plugin)]}
        configuration = layout.state / "site.conf"
        configuration.write_text(_CONFIGURATION + "\n")
        files = {str(self.program): "/init", str(configuration): "/etc/ironic-python-agent.d/site.conf"}
        files.update((shutil.which(program), f"/usr/sbin/{program}") for program in _RAMDISK_PROGRAMS)
        files.update((library, library) for program in list(files) for library in _libraries(program))
        return {"kind": self.kind, "command": ["/init"], "files": files}

    def with_extra_step(self):
        """The same agent with a hardware manager beside its own, as a site would add one; none where it was not built."""
        if self.is_reference:
            return replace(self, plugin=_PLUGIN)
        folders = [self.program.parent / "examples"]
        if self.program.is_relative_to(REPOSITORY / "dist"):
            target = Path(os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target")
            folders.append(target / "debug/examples")
        found = [folder / _EXAMPLE for folder in folders if (folder / _EXAMPLE).exists()]
        return replace(self, program=found[0]) if found else None


def find_agent(choice):
    """`ipa`, `ferric` (what `make build` has built) or the path of a program."""
    if choice == REFERENCE:
        return Agent(REFERENCE, "service")
    program = REPOSITORY / "dist/ferric-agent" if choice == "ferric" else Path(choice)
    if not program.is_file() or not os.access(program, os.X_OK):
        advice = "run `make build` first" if choice == "ferric" else "give ipa, ferric or the path of a program"
        raise CannotRun(f"no agent at {program}: {advice}")
    return Agent("ferric", "init", program.resolve())


def _ipa_script(program, plugin):
    return _IPA_SCRIPT.format(program=program, plugin=plugin or "", configuration=_CONFIGURATION)


def _libraries(program):
    """Shared libraries of a program that is not static, such as a debug build; a real ramdisk would refuse it."""
    output = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return sorted({word for line in output.splitlines() for word in line.split() if word.startswith("/") and ".so" in word})
