"""Resident memory of everything that runs in the machine, in KiB."""

from pathlib import Path

from harness import processes


def _field(text, name):
    for line in text.splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    return 0


def of_machine(process):
    """`{"rss": ..., "pss": ..., "anonymous": ..., "processes": ...}` of the agent and all it started; the harness's own processes left out."""
    total = {"rss": 0, "pss": 0, "anonymous": 0, "processes": 0}
    for number in processes.programs_of_machine(process):
        try:
            rollup = Path(f"/proc/{number}/smaps_rollup").read_text()
        except OSError:
            continue  # it ended while it was looked at
        total["rss"] += _field(rollup, "Rss")
        total["pss"] += _field(rollup, "Pss")
        total["anonymous"] += _field(rollup, "Anonymous")
        total["processes"] += 1
    return total
