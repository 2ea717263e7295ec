"""Resident memory of everything that runs in the machine, in KiB."""

import os
from pathlib import Path

HARNESS = "harness.machine.launch"


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


def _field(text, name):
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def of_machine(process):
    """`{"rss": ..., "pss": ..., "anonymous": ..., "processes": ...}` of the agent and all it started; the harness's own processes left out."""
    total = {"rss": 0, "pss": 0, "anonymous": 0, "processes": 0}
    for number in _descendants(process):
        try:
            command = Path(f"/proc/{number}/cmdline").read_text(errors="replace")
            if not command or HARNESS in command:
                continue
            rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
        except OSError:
            continue  # it ended while it was looked at
        total["rss"] += _field(rollup, "Rss")
        total["pss"] += _field(rollup, "Pss")
        total["anonymous"] += _field(rollup, "Anonymous")
        total["processes"] += 1
    return total
