"""Processes and locks that do not outlive the harness, however it ends."""

import contextlib
import fcntl
import os
import signal
import subprocess

from . import syscalls
from .failure import CannotRun

_STOP_SECONDS = 8


@contextlib.contextmanager
def exclusively(path, busy=None):
    """Holds a lock file. Waits for it, or fails with the message `busy`. The kernel lets go of it when the process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise CannotRun(busy) from None
        yield


class Daemon:
    """A program in a namespace of process ids of its own, so that all it starts ends with it, and it with the harness.

    Start it from a thread that lasts.
    """

    def __init__(self, command, log, environment):
        wrapped = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--", *map(str, command)]
        with open(log, "ab") as output:
            self._process = subprocess.Popen(
                wrapped,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
                start_new_session=True,
                preexec_fn=lambda: syscalls.die_with_parent(signal.SIGKILL),
            )

    def is_running(self):
        return self._process.poll() is None

    def stop(self):
        """Asks the program to end, then makes it."""
        for child in _children(self._process.pid):
            os.kill(child, signal.SIGTERM)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _children(process):
    try:
        with open(f"/proc/{process}/task/{process}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []
