"""The harness's machine with a stub in the place of a conductor: one agent at a time, started anew for each use.

Everything runs in the control namespace of an instance of its own, so a run of the scenarios may go on beside it.
"""

import contextlib
import os
import socket

from harness import dhcp, syscalls, venv
from harness.agents import find_agent
from harness.bench import remove_state
from harness.bmc import Bmc
from harness.disk import Disk
from harness.layout import CONTROL_IP, NODE_MAC, PROXY_PORT, Layout
from harness.machine.guard import remove_guards
from harness.network import Network
from harness.process import exclusively
from harness.transcript import Transcript

from .client import Agent
from .stub import Stub

INSTANCE = "direct"
# Attempts and pauses as short as they can be: a download that fails is one of the questions.
COMMAND_LINE = (
    "nofb ipa-debug={debug} ipa-api-url=http://{address} ipa-image-download-connection-retries=0 ipa-image-download-connection-retry-interval=0 "
    "ipa-disk-wait-attempts=1 ipa-global-request-id=req-00000000-0000-4000-8000-000000000001"
)


class Machine:
    """A blank disk, a network, and an agent at each `start`."""

    def __init__(self, layout, network, choice, transcripts, debug=1):
        agent = find_agent(choice)
        self.name = agent.name
        self.disk = Disk(layout.disk_image)
        self._layout, self._debug = layout, debug
        self.transcript = Transcript(transcripts / agent.name)
        self.bmc = Bmc(layout, agent, self.disk, network, self.transcript)
        self.stub = None

    def _power(self, word):
        client = socket.socket(socket.AF_UNIX)
        with client:
            client.connect(str(self._layout.bmc_socket))
            client.sendall(f"power {word}".encode())
            client.recv(4096)

    def _write_boot_configuration(self):
        folder = self._layout.state / "tftpboot" / "pxelinux.cfg"
        folder.mkdir(parents=True, exist_ok=True)
        dashed = "01-" + NODE_MAC.replace(":", "-")
        line = COMMAND_LINE.format(address=f"{CONTROL_IP}:{PROXY_PORT}", debug=self._debug)
        (folder / dashed).write_text(f"default deploy\n\nlabel deploy\nkernel x\nappend {line}\nipappend 2\n")

    @contextlib.contextmanager
    def running(self, heartbeat_timeout=300, at_once=False):
        """A machine that is on and has sent its first heartbeat: gives `(stub, agent)`. It is off afterwards.

        With `at_once` it is given before anything came from it, and `agent` is none.
        """
        self._write_boot_configuration()
        self.stub = Stub((CONTROL_IP, PROXY_PORT), heartbeat_timeout)
        self.stub.start()
        try:
            self._power("on")
            if at_once:
                yield self.stub, None
                return
            beat = self.stub.wait_for("/heartbeat/")
            yield self.stub, Agent(beat[3]["callback_url"], beat[3].get("agent_verify_ca"))
        finally:
            self._power("off")
            self.stub.stop()

    def start(self):
        self.disk.attach()
        self.bmc.serve()

    def stop(self):
        self.bmc.stop()
        self.disk.remove()
        remove_guards(self._layout.cgroup)


def transcripts():
    """Where transcripts go: beside those of the scenarios."""
    return Layout.from_environment().transcripts


@contextlib.contextmanager
def namespaces(say):
    """Moves this process into a fresh control namespace; gives `(layout, network)`."""
    shared = Layout.from_environment()
    layout = Layout(shared.cache, "-".join(filter(None, (shared.instance, INSTANCE))))
    with exclusively(layout.cache / f".lock{layout.suffix}", busy=f"the instance {layout.instance} is in use by another run"):
        venv.prepare_reference_agent(layout, say)
        network = Network(layout)
        home = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            network.up()
            syscalls.enter_network_namespace(layout.control_namespace)
            dhcp.serve()
            yield layout, network
        finally:
            network.down()
            os.close(home)


@contextlib.contextmanager
def machine(layout, network, choice, transcripts, debug=1):
    """A machine for one agent; nothing of it is left afterwards."""
    remove_state(layout)
    layout.log.mkdir(parents=True, exist_ok=True)
    made = Machine(layout, network, choice, transcripts, debug)
    made.start()
    try:
        yield made
    finally:
        made.stop()
