"""One command, measured: wall time until what it wrote is durable, and the memory of all its processes at their peak."""

import json
import os
import signal
import subprocess
import threading
import time
from dataclasses import dataclass

PAGE = os.sysconf("SC_PAGE_SIZE")
SAMPLE_SECONDS = 0.02


@dataclass
class Run:
    """Seconds and bytes. `inner`: what a command said of itself."""

    seconds: float
    cpu_seconds: float
    resident: int
    spooled: int
    failure: str
    inner: dict


class Sampler(threading.Thread):
    """Watches a process and its descendants: their resident memory together, and what they keep in a temporary folder."""

    def __init__(self, pid, spool):
        super().__init__(daemon=True)
        self._pid, self._spool = pid, spool
        self._ended = threading.Event()
        self.resident = self.spooled = 0

    def run(self):
        while not self._ended.wait(SAMPLE_SECONDS):
            self.resident = max(self.resident, sum(map(_resident, _family(self._pid))))
            self.spooled = max(self.spooled, _used(self._spool))

    def end(self):
        self._ended.set()
        self.join()


def _family(pid):
    """The process and its descendants."""
    found, open_ends = [], [pid]
    while open_ends:
        one = open_ends.pop()
        found.append(one)
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                with open(f"/proc/{one}/task/{task}/children") as children:
                    open_ends += map(int, children.read().split())
        except OSError:
            pass
    return found


def _resident(pid):
    try:
        with open(f"/proc/{pid}/statm") as statm:
            return int(statm.read().split()[1]) * PAGE
    except (OSError, IndexError):
        return 0


def _used(folder):
    return sum(entry.stat().st_blocks * 512 for entry in os.scandir(folder) if entry.is_file())


def run(command, device, spool, environment, limit):
    """Runs a shell command against the device. `spool`: an empty folder for its temporary files."""
    for entry in os.scandir(spool):
        os.unlink(entry.path)
    output = spool.parent / "output"
    with open(output, "w+b") as stream:
        begin = time.monotonic()
        process = subprocess.Popen(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "LC_ALL": "C", "TMPDIR": str(spool)},
            preexec_fn=os.setpgrp,  # so that all of it can be ended at once
        )
        sampler = Sampler(process.pid, spool)
        sampler.start()
        alarm = threading.Timer(limit, _kill, [process.pid])
        alarm.start()
        try:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            _kill(process.pid)
            os.wait4(process.pid, 0)
            process.returncode = -1
            raise
        finally:
            alarm.cancel()
            sampler.end()
        ended = time.monotonic()
        device.flush()
        flush_seconds = time.monotonic() - ended
    text = output.read_text(errors="replace")
    inner = next((json.loads(line[6:]) for line in text.splitlines() if line.startswith("BENCH ")), {})
    return Run(
        # A program that runs already when its command arrives says how long the command took.
        seconds=inner.get("seconds", ended - begin) + flush_seconds,
        cpu_seconds=used.ru_utime + used.ru_stime,
        resident=sampler.resident,
        spooled=sampler.spooled,
        failure=_failure(process.returncode, text, limit if ended - begin >= limit else None),
        inner=inner,
    )


def _failure(code, text, limit):
    if code == 0:
        return ""
    if limit:
        return f"hung, and was ended after {limit} s"
    return f"exit code {code}: {text.strip()[-400:]}"


def _kill(pid):
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
