"""Virtual environments with releases from PyPI, made once."""

import shutil
import subprocess
import sys

from .failure import CannotRun
from .process import exclusively
from .versions import REFERENCE_AGENT, RELEASES


def ironic_folder(layout, version):
    return layout.venvs / f"ironic-{version}"


def agent_folder(layout):
    return layout.venvs / f"ironic-python-agent-{REFERENCE_AGENT}"


def prepare_ironic(layout, version, say):
    release = RELEASES[version]
    _prepare(ironic_folder(layout, version), [f"ironic=={version}", *release.pins], say)


def prepare_reference_agent(layout, say):
    _prepare(agent_folder(layout), [f"ironic-python-agent=={REFERENCE_AGENT}"], say)


def _prepare(folder, requirements, say):
    """Installs into a fresh environment, unless exactly this was installed into it before."""
    wanted = " ".join(requirements)
    mark = folder / "installed"
    with exclusively(folder.parent / f".{folder.name}.lock"):
        if mark.exists() and mark.read_text() == wanted:
            return
        say(f"installing {wanted} from PyPI")
        shutil.rmtree(folder, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", folder],
            [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", *requirements],
        ):
            result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
            if result.returncode:
                raise CannotRun(f"installing {wanted} failed:\n{result.stdout}{result.stderr}".strip())
        mark.write_text(wanted)
