"""The machine's BMC and firmware: power, boot device, and booting what the PXE configuration says.

Ironic's `ipmitool` is `bin/ipmitool`, which passes the words on to the socket here. On power-on the configuration that Ironic wrote
for the machine's MAC address decides: the deploy ramdisk (the agent is started, with exactly that kernel command line) or the disk
(nothing runs).
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .layout import HOME
from .machine.agent import POWERED_OFF, REBOOTED
from .processes import find_agent_process
from .pxe import kernel_command_line

_STOP_SECONDS = 10
_CYCLE_PAUSE = 0.2


class Bmc:
    def __init__(self, layout, agent, disk, network, transcript, machine_memory="6g"):
        self._layout, self._disk, self._network = layout, disk, network
        self._transcript, self._memory = transcript, machine_memory
        self.agent = agent
        """What the next boot of the ramdisk starts."""
        self._lock = threading.RLock()
        # The machine dies with the thread that started it, so that one has to last as long as the harness.
        self._starter = ThreadPoolExecutor(1)
        self._process, self._boot_device, self._server = None, None, None
        self.power, self.boots = "off", 0

    @property
    def process(self):
        """Process id of the machine, or none when nothing runs."""
        process = self._process
        return process.pid if process else None

    def machine_root(self):
        """The file systems of the machine, as the agent sees them; none when it does not run."""
        process = self.process and find_agent_process(self.process)
        return Path(f"/proc/{process}/root") if process else None

    @property
    def log(self):
        """Where the agent of the last boot writes."""
        return self._layout.log / f"agent-boot{self.boots:03}.log"

    def serve(self):
        self._layout.bmc_socket.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(self._layout.bmc_socket))
        self._server.listen(16)
        threading.Thread(target=self._answer, daemon=True).start()

    def stop(self):
        self._power_off()

    def _answer(self):
        while True:
            client, _ = self._server.accept()
            with client:
                try:
                    answer = self._obey(client.recv(4096).decode().split())
                except Exception as error:  # whatever it is, the next request is served
                    answer = f"error {error!r}"
                    self._transcript.write({"dir": "machine", "event": answer})
                try:
                    client.sendall((answer + "\n").encode())
                except OSError:
                    pass

    def _obey(self, words):
        if words[:1] == ["bootdev"]:
            self._boot_device = " ".join(words[1:])
            self._transcript.write({"dir": "ironic->bmc", "event": "bootdev " + self._boot_device})
            return "ok"
        if words == ["power", "status"]:
            return self.power
        if words[:1] != ["power"]:
            return "unknown"
        link = self._network.machine_link()
        self._transcript.write({"dir": "ironic->bmc", "event": "power " + words[1], "link": link})
        if words[1] == "on":
            self._power_on()
        elif words[1] in ("off", "soft"):
            self._power_off()
        elif words[1] in ("reset", "cycle"):
            self._power_off()
            time.sleep(_CYCLE_PAUSE)
            self._power_on()
        return self.power

    def _power_on(self):
        with self._lock:
            if self.power == "on":
                return
            self.power = "on"
            self.boots += 1
            command_line, configuration = kernel_command_line(self._layout.state / "tftpboot")
            record = {"dir": "machine", "bootdev": self._boot_device, "boot": self.boots}
            if command_line is None:
                self._transcript.write({**record, "event": "boot from disk", "pxe_config": str(configuration)})
                return
            self._network.prepare_machine(configured=self.agent.kind == "service")
            self._transcript.write({**record, "event": "boot ramdisk", "cmdline": command_line, "log": str(self.log)})
            self._process = self._starter.submit(self._start, self._specification(command_line)).result()
            threading.Thread(target=self._watch, args=(self._process, self.boots), daemon=True).start()

    def _specification(self, command_line):
        path = self._layout.state / "machine.json"
        specification = {
            "network_namespace": self._layout.node_namespace,
            "cgroup": self._layout.cgroup,
            "loop": self._disk.loop,
            "cmdline": command_line,
            "memory": self._memory,
            "log": str(self.log),
            "agent": self.agent.specification(self._layout),
            "visible": sorted({str(HOME), str(self._layout.venvs), os.path.realpath(sys.base_prefix)}),
        }
        path.write_text(json.dumps(specification, indent=1))
        return path

    def _start(self, specification):
        reading, writing = os.pipe()
        with open(self.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "harness.machine.launch", str(specification), str(writing)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[writing],
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": str(HOME), "PYTHONDONTWRITEBYTECODE": "1"},
            )
        os.close(writing)
        threading.Thread(target=self._record_reports, args=(reading, self.boots), daemon=True).start()
        return process

    def _record_reports(self, descriptor, boot):
        with os.fdopen(descriptor) as reports:
            for line in reports:
                self._transcript.write({"dir": "machine", "boot": boot, **json.loads(line)})

    def _watch(self, process, boot):
        code = process.wait()
        with self._lock:
            if self._process is not process:
                return
            self._process, self.power = None, "off"
            event = {
                POWERED_OFF: "power off requested by the machine",
                REBOOTED: "reboot requested by the machine",
            }.get(code, f"box ended ({code})")
            self._transcript.write({"dir": "machine", "event": event, "boot": boot})
            if code == REBOOTED:
                self._power_on()

    def _power_off(self):
        with self._lock:
            process, self._process, self.power = self._process, None, "off"
        if process:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
