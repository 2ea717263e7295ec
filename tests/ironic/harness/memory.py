"""Samples the memory of everything in the machine while a scenario runs."""

import os
import threading
from pathlib import Path

_PAUSE = 0.5
_HARNESS = "harness.machine.launch"


class MemoryWatch:
    """`with MemoryWatch(bmc) as watch: ...`; then `watch.figures` holds the peaks in KiB:

    `agent_kb` and `agent_idle_kb` (last sample of the process under test, and its smallest), `peak_total_kb` (it and all it started),
    `procs` (by program), `peak_tmpfs_kb` (what was written to file systems in memory after the start).
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
        processes = _descendants(machine)
        programs = {process: _program(process) for process in processes}
        own = [process for process, program in programs.items() if program and _HARNESS not in program]
        total, root = 0, None
        for process in own:
            name = programs[process].split("\0")[0].rsplit("/", 1)[-1]
            if name == "init" or "ironic-python-agent" in programs[process]:
                name, root = "agent", process
            size = _resident(process)
            total += size
            by_name = self.figures.setdefault("procs", {})
            by_name[name] = max(by_name.get(name, 0), size)
            if name == "agent":
                self.figures["agent_idle_kb"] = min(self.figures.get("agent_idle_kb", size), size)
        if total:
            self.figures["peak_total_kb"] = max(self.figures.get("peak_total_kb", 0), total)
        if root is not None:
            used = _memory_file_systems(root)
            start = self._tmpfs_at_start.setdefault(machine, used)
            self.figures["peak_tmpfs_kb"] = max(self.figures.get("peak_tmpfs_kb", 0), used - start)


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


def _program(process):
    return Path(f"/proc/{process}/cmdline").read_text(errors="replace")


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
