"""Where everything lies, and which addresses the instance uses.

Several instances run side by side: each has its own namespaces and its own folder, while virtual environments and images are
shared. The addresses are the same in all of them, as the namespaces keep them apart.
"""

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
HOME = Path(__file__).resolve().parents[1]
"""`tests/ironic`."""

CONTROL_IP = "172.31.20.1"
NODE_IP = "172.31.20.2"
NODE_MAC = "52:54:00:20:00:02"
API_PORT = 20386
"""Ironic's own API, on loopback of the control namespace."""
RPC_PORT = 20387
"""Where API and conductor are two processes: the conductor's, on the same loopback."""
PROXY_PORT = 20385
"""What the agent takes for Ironic: the recording proxy."""
CALLBACK_TLS_PORT = 20900
CALLBACK_PLAIN_PORT = 20901
"""What Ironic takes for the agent."""
IMAGE_PORT = 20080

DISK_BYTES = 4 << 30
"""The machine's disk, sparse. Agents that are told nothing look for one of at least 4 GiB, and wait half a minute for it."""
DISK_SERIAL = "HARNESS0001"


@dataclass(frozen=True)
class Layout:
    """The folders and names of one instance."""

    cache: Path
    instance: str

    @classmethod
    def from_environment(cls):
        cache = os.environ.get("FERRIC_IRONIC_CACHE") or REPOSITORY / ".cache" / "ironic"
        return cls(Path(cache).resolve(), os.environ.get("FERRIC_IRONIC_INSTANCE", ""))

    @property
    def suffix(self):
        return f"-{self.instance}" if self.instance else ""

    @property
    def venvs(self):
        return self.cache / "venv"

    @property
    def images(self):
        return self.cache / "images"

    @property
    def state(self):
        """What a run makes and the next one throws away, except for the logs."""
        return self.cache / f"run{self.suffix}"

    @property
    def log(self):
        return self.state / "log"

    @property
    def transcripts(self):
        return self.cache / f"transcripts{self.suffix}"

    @property
    def disk_image(self):
        return self.state / "disk.img"

    @property
    def bmc_socket(self):
        return self.state / "bmc.sock"

    @property
    def control_namespace(self):
        """Network namespace of Ironic, the proxy and the image server."""
        return f"ferric-ctl{self.suffix}"

    @property
    def node_namespace(self):
        """Network namespace of the machine that runs the agent."""
        return f"ferric-node{self.suffix}"

    @property
    def cgroup(self):
        return f"ferric-node{self.suffix}"
