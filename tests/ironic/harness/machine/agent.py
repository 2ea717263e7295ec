"""Starts the program under test in the way its ramdisk would.

`service`: a program of a distribution, started by an init that has set up the network (ironic-python-agent).
`init`: the first process of a ramdisk with nothing else in it (Ferric). It gets a process id namespace of its own, in which it
is process 1, and a root in memory that holds its own files only.
"""

import os
import shutil
import signal
import socket
import traceback

from .. import syscalls
from . import rereads
from .partitions import LIST
from .root import PRIVATE, protect_proc, put

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "TERM": "dumb",
    # libudev refuses a device whose folder is not on sysfs, unless it is told otherwise.
    "SYSTEMD_DEVICE_VERIFY_SYSFS": "0",
}
POWERED_OFF, REBOOTED, ENDED = 10, 11, 13
"""Exit codes of `start_init`'s process, and of the whole machine."""
BY_REBOOT = {signal.SIGINT: POWERED_OFF, signal.SIGHUP: REBOOTED}
"""What the first process of a namespace of process ids dies of when one in it calls reboot(2)."""
_ROOT = PRIVATE + "/ramdisk-root"


def start_service(command, console):
    """Returns the process id, and what listens to its re-reads of partition tables."""
    return _start(lambda: _execute(command, ENVIRONMENT, console), console)


def start_init(command, memory, console):
    """Returns the id of a process that ends when the agent does, with one of the exit codes above; and the listener."""
    return _start(lambda: _supervise(command, memory), console)


def _start(work, console):
    here, there = socket.socketpair()
    with here, there:
        process = os.fork()
        if process == 0:
            _in_child(lambda: (rereads.divert(there), work()), console)
        there.close()
        return process, rereads.receive_listener(here)


def _in_child(work, console):
    """Runs `work` in a process that was just forked, and never returns: it must not run its parent's code."""
    try:
        work()
    except BaseException:
        os.write(console, f"starting the agent: {traceback.format_exc()}\n".encode())
    os._exit(127)


def _supervise(command, memory):
    syscalls.unshare(syscalls.CLONE_NEWPID | syscalls.CLONE_NEWNS)
    agent = os.fork()
    if agent == 0:
        _in_child(lambda: (_enter_ramdisk(memory), _execute(command, {"HOME": "/", "TERM": "linux"}, None)), 2)
    _, status = os.waitpid(agent, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in BY_REBOOT:
        os._exit(BY_REBOOT[os.WTERMSIG(status)])
    # A kernel would panic. What it was goes to the log; the machine hangs.
    os._exit(ENDED)


def _enter_ramdisk(memory):
    """What the kernel has unpacked when it starts /init, with its file systems mounted already: as the disk and the card are
    not the kernel's, the agent can not mount them itself, and finds them there instead."""
    os.mkdir(_ROOT)
    syscalls.mount("rootfs", _ROOT, "tmpfs", 0, f"mode=755,size={memory}")
    shutil.copytree(PRIVATE + "/ramdisk", _ROOT, dirs_exist_ok=True)
    shutil.rmtree(PRIVATE + "/ramdisk")
    for folder in ("dev", "proc", "sys", "run", "tmp", "root", "etc/ironic-python-agent.d", "etc/ferric/hardware-managers.d"):
        os.makedirs(f"{_ROOT}/{folder}", exist_ok=True)
    for file, text in (
        ("hosts", "127.0.0.1 localhost\n"),
        ("passwd", "root:x:0:0:root:/root:/bin/sh\n"),
        ("group", "root:x:0:\n"),
    ):
        put(f"{_ROOT}/etc/{file}", text)
    syscalls.bind("/dev", _ROOT + "/dev", recursive=True)
    syscalls.bind("/sys", _ROOT + "/sys", recursive=True)
    syscalls.mount("run", _ROOT + "/run", "tmpfs", 0, "mode=755")
    syscalls.mount("tmp", _ROOT + "/tmp", "tmpfs", 0, f"mode=1777,size={memory}")
    # There is no udevd in this ramdisk, so there are none of its links.
    syscalls.mount("links", _ROOT + "/dev/disk", "tmpfs")
    syscalls.mount("proc", _ROOT + "/proc", "proc")
    private = _ROOT + PRIVATE
    os.makedirs(private)
    syscalls.bind(PRIVATE, private)
    os.chdir(_ROOT)
    os.makedirs("run/old")
    syscalls.pivot_root(".", "run/old")
    os.chroot(".")
    os.chdir("/")
    syscalls.unmount("/run/old", syscalls.MNT_DETACH)
    os.rmdir("/run/old")
    protect_proc()
    syscalls.bind(LIST, "/proc/partitions")
    syscalls.unmount(PRIVATE, syscalls.MNT_DETACH)
    os.rmdir(PRIVATE)


def _execute(command, environment, console):
    os.setsid()
    for capability in (syscalls.CAP_SYS_MODULE, syscalls.CAP_SYS_TIME):
        syscalls.drop_capability(capability)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    for output in (1, 2):
        os.dup2(null if console is None else console, output)
    os.chdir("/")
    os.execvpe(command[0], command, environment)
