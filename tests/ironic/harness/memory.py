"""Samples the memory of everything in the machine while a scenario runs."""

import os
import threading
from pathlib import Path

from .processes import find_agent_process, programs_of_machine

_PAUSE = 0.5


class MemoryWatch:
    """`with MemoryWatch(bmc) as watch: ...`; then `watch.figures` holds the peaks in KiB:

    `procs` (by program; the process under test is `agent`), `agent_idle_kb` (its least), `peak_total_kb` (it and all it started),
    `peak_tmpfs_kb` (what was written to file systems in memory after the start).
    """

    def __init__(self, bmc):
        self._bmc, self._stop = bmc, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._tmpfs_at_start = {}
        self.figures = {}

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.wait(_PAUSE):
            machine = self._bmc.process
            if machine is not None:
                try:
                    self._sample(machine)
                except (OSError, ValueError, IndexError):
                    pass  # processes went away while they were looked at

    def _sample(self, machine):
        total = 0
        for process, name in programs_of_machine(machine).items():
            size = _resident(process)
            total += size
            by_name = self.figures.setdefault("procs", {})
            by_name[name] = max(by_name.get(name, 0), size)
            if name == "agent":
                self.figures["agent_idle_kb"] = min(self.figures.get("agent_idle_kb", size), size)
        if total:
            self.figures["peak_total_kb"] = max(self.figures.get("peak_total_kb", 0), total)
        agent = find_agent_process(machine)
        if agent is not None:
            used = _memory_file_systems(agent)
            start = self._tmpfs_at_start.setdefault(machine, used)
            self.figures["peak_tmpfs_kb"] = max(self.figures.get("peak_tmpfs_kb", 0), used - start)


def _resident(process):
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _memory_file_systems(process):
    used, seen = 0, set()
    for folder in ("/", "/tmp", "/run"):
        path = f"/proc/{process}/root{folder}"
        device = os.stat(path).st_dev
        if device in seen:
            continue
        seen.add(device)
        space = os.statvfs(path)
        if space.f_blocks * space.f_frsize < 64 << 30:
            used += (space.f_blocks - space.f_bfree) * space.f_frsize // 1024
    return used
