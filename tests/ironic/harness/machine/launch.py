"""Starts the machine: `python3 -m harness.machine.launch SPECIFICATION REPORTS`.

SPECIFICATION is the JSON file that the BMC wrote, REPORTS a descriptor to which the machine reports, one JSON object a line.
The exit status says how the machine ended: 10 it switched itself off, 11 it rebooted, 12 it was killed, else it broke.
"""

import json
import os
import signal
import socket
import sys

from .. import syscalls
from .agent import BY_REBOOT
from .guard import make_guard
from .init import run

KILLED = 12


def main():
    with open(sys.argv[1]) as file:
        specification = json.load(file)
    reports = os.fdopen(int(sys.argv[2]), "w", buffering=1)
    syscalls.die_with_parent(signal.SIGKILL)
    syscalls.enter_network_namespace(specification["network_namespace"])
    guard = make_guard(specification["cgroup"])
    disk = os.stat(specification["loop"]).st_rdev
    disk = (os.major(disk), os.minor(disk))
    guard.allow_disks([disk])

    here, inside = socket.socketpair()
    syscalls.unshare(syscalls.CLONE_NEWUTS | syscalls.CLONE_NEWIPC | syscalls.CLONE_NEWPID)
    machine = os.fork()
    if machine == 0:
        syscalls.die_with_parent(signal.SIGKILL)
        # Here and not above: a change of the root moves every process of the mount namespace, and the guard works from the host's.
        syscalls.unshare(syscalls.CLONE_NEWNS)
        here.close()
        run(specification, inside)
    inside.close()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(machine, signal.SIGKILL))
    _serve(here, guard, disk, reports)
    _, status = os.waitpid(machine, 0)
    if os.WIFSIGNALED(status):
        sys.exit(BY_REBOOT.get(os.WTERMSIG(status), KILLED))
    sys.exit(os.WEXITSTATUS(status))


def _serve(machine, guard, disk, reports):
    """Passes reports on, and opens the guard for partitions of the machine's own disk, until the machine is gone."""
    with machine.makefile("rw") as lines:
        for line in lines:
            message = json.loads(line)
            if "partitions" in message:
                guard.allow_disks([disk, *map(tuple, message["partitions"])])
                try:
                    lines.write("done\n")
                    lines.flush()
                except OSError:
                    return
            else:
                reports.write(line)


if __name__ == "__main__":
    main()
