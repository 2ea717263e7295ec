"""Looks at the processes in the machine, from outside."""

import os
from pathlib import Path

_HARNESS = "harness.machine.launch"


def programs_of_machine(machine):
    """`{process id: name}` of everything that was started below a process, the harness itself left out. The process under test is
    `agent`, whatever its file is called."""
    found = {}
    for process in _descendants(machine):
        try:
            words = Path(f"/proc/{process}/cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue  # gone already
        if not words[0] or _HARNESS in words:
            continue
        is_agent = words[0] == "/init" or any(word.endswith("/ironic-python-agent") for word in words[:2])
        found[process] = "agent" if is_agent else os.path.basename(words[0])
    return found


def find_agent_process(machine):
    """The first process under test; none where there is none."""
    return min((process for process, name in programs_of_machine(machine).items() if name == "agent"), default=None)


def _descendants(process):
    children = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                parent = int(Path(f"/proc/{name}/stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
            children.setdefault(parent, []).append(int(name))
    found, waiting = [], [process]
    while waiting:
        found.append(waiting.pop())
        waiting += children.get(found[-1], [])
    return found
