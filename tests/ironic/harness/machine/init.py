"""The first process of the machine: builds root and hardware, starts the agent, and plays kernel and udevd from then on."""

import json
import os
import select
import signal
import socket
import stat
import time
import traceback
from functools import partial

from .. import syscalls
from . import rereads
from .agent import ENDED, POWERED_OFF, REBOOTED, start_init, start_service
from .hardware import DISK, build_hardware
from .partitions import LIST, Partitions
from .root import CONSOLE, HOST_SYS, build_root, get, put
from .settle import SOCKET
from .tools import install_tools
from .udev import Udev

_MOST_RESTARTS, _RESTART_PAUSE = 5, 5.0
_KERNEL_EVENTS = 15
"""NETLINK_KOBJECT_UEVENT."""


def run(specification, launcher):
    """Never returns. `launcher` is a socket to the process that guards the devices."""
    log = os.open(specification["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    try:
        Machine(specification, launcher, log).run()
    except BaseException:  # the first process has nobody to tell but the log
        os.write(log, traceback.format_exc().encode())
    os._exit(1)


class Machine:
    def __init__(self, specification, launcher, log):
        self._specification, self._log_descriptor = specification, log
        self._agent_kind = specification["agent"]["kind"]
        self._launcher = launcher.makefile("rw")
        self._restarts, self._restart_at, self._agent = 0, None, None

    def run(self):
        loop = self._specification["loop"]
        device = os.stat(loop).st_rdev
        number = (os.major(device), os.minor(device))
        build_root(self._specification)
        self._check_guard(os.path.basename(loop))
        build_hardware(loop, number)
        if self._agent_kind == "service":
            install_tools()
        put(LIST, "")
        self._partitions, self._udev = Partitions(loop, number, self._permit, self._log), Udev(number)
        self._refresh()
        syscalls.bind(LIST, "/proc/partitions")
        self._listen(os.path.basename(loop))
        self._start_agent()
        for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(signal_number, lambda *_: None)
        while True:
            self._turn()

    def _log(self, text):
        os.write(self._log_descriptor, f"{time.time():.3f} machine: {text}\n".encode())

    def _report(self, event, **more):
        self._launcher.write(json.dumps({"event": event, "t": round(time.time(), 3), **more}) + "\n")
        self._launcher.flush()

    def _permit(self, devices):
        """Asks for the partitions of the disk to be let through the guard."""
        self._launcher.write(json.dumps({"partitions": devices}) + "\n")
        self._launcher.flush()
        if self._launcher.readline() != "done\n":
            raise RuntimeError("the guard is gone")

    def _check_guard(self, own):
        """Ends the machine unless the kernel refuses every other disk of the host."""
        for name in os.listdir(HOST_SYS + "/block"):
            device = get(f"{HOST_SYS}/block/{name}/dev").strip()
            if name == own or not device:
                continue
            probe = "/dev/probe"
            try:
                os.mknod(probe, 0o600 | stat.S_IFBLK, os.makedev(*map(int, device.split(":"))))
            except PermissionError:
                continue
            os.unlink(probe)
            raise RuntimeError(f"the device cgroup lets {name} through: refusing to start the agent")

    def _listen(self, loop):
        self._loop = loop.encode()
        self._settling = socket.socket(socket.AF_UNIX)
        self._settling.bind(SOCKET)
        self._settling.listen(16)
        self._events = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, _KERNEL_EVENTS)
        self._events.bind((0, 1))
        self._rereads = None
        self._closing, self._watched = syscalls.watch_closing([f"/dev/{DISK}"]), {DISK}
        self._console = os.open(CONSOLE, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _start_agent(self):
        agent = self._specification["agent"]
        if self._agent_kind == "init":
            start = partial(start_init, agent["command"], self._specification["memory"])
        else:
            start = partial(start_service, agent["command"])
        self._agent, self._rereads = start(self._log_descriptor)
        self._log(f"started {agent['command']}")
        self._report("agent started")

    def _turn(self):
        """Waits for something to happen, and does what it takes."""
        nodes = {name for name in os.listdir("/dev") if name.startswith(DISK)}
        syscalls.watch_closing([f"/dev/{name}" for name in nodes - self._watched], self._closing)
        self._watched = nodes
        sources = [self._settling, self._events, self._closing, self._console]
        sources += [self._rereads] if self._rereads is not None else []
        ready, _, _ = select.select(sources, [], [], 0.5)
        if self._rereads in ready:
            rereads.answer(self._rereads, self._refresh)
        if self._console in ready:
            os.write(self._log_descriptor, os.read(self._console, 65536))
        changed = self._events in ready and self._is_disk_concerned()
        if self._closing in ready:
            os.read(self._closing, 65536)
            changed = True
        waiting = self._settling.accept()[0] if self._settling in ready else None
        if changed or waiting:
            self._refresh()
        if waiting:
            try:
                waiting.send(b"1")
            except OSError:
                pass
            waiting.close()
        self._reap()
        if self._restart_at and time.time() > self._restart_at:
            self._restart_at = None
            self._start_agent()

    def _is_disk_concerned(self):
        concerned = False
        while True:
            try:
                message = self._events.recv(65536, socket.MSG_DONTWAIT)
            except OSError:
                return concerned
            concerned = concerned or b"/" + self._loop in message

    def _refresh(self):
        try:
            self._udev.publish(self._partitions.refresh())
        except OSError as error:  # a node went away in between; another event follows
            self._log(f"refreshing: {error!r}")

    def _reap(self):
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if process == 0:
                return
            if process == self._agent:
                self._agent_ended(os.waitstatus_to_exitcode(status))

    def _agent_ended(self, code):
        os.close(self._rereads)
        self._rereads = None
        if self._agent_kind == "init":
            if code in (POWERED_OFF, REBOOTED):
                os._exit(code)
            self._log("the first process ended: a kernel would panic here" if code == ENDED else f"the agent: {code}")
            self._report("agent ended")
            return
        self._log(f"the agent exited with {code}")
        self._report("agent ended", code=code)
        if self._restarts < _MOST_RESTARTS:
            self._restarts += 1
            self._restart_at = time.time() + _RESTART_PAUSE
