"""One Ironic with one node and its machine, put together and taken apart."""

import shutil

from . import dhcp
from .agents import Agent
from .bmc import Bmc
from .conductor import Conductor
from .disk import Disk
from .image_server import URL, ImageServer
from .images import Images
from .machine.guard import remove_guards
from .network import Network
from .node import Node
from .proxy import Proxy
from .transcript import Transcript


class Bench:
    """What a scenario works with. Everything of it runs in the control namespace."""

    def __init__(self, layout, network, version, agent: Agent):
        self.layout, self.version, self.agent = layout, version, agent
        self.images = Images(layout.images)
        self.disk = Disk(layout.disk_image)
        self.transcript = Transcript(layout.transcripts / version / agent.name)
        self.bmc = Bmc(layout, agent, self.disk, network, self.transcript)
        self.node = Node(self.images)
        self.image_server = ImageServer(layout.images, self.transcript)
        self.conductor = Conductor(layout, version)
        self._proxy = Proxy(layout.state, self.transcript)

    @property
    def release(self):
        """The major version of Ironic."""
        return int(self.version.split(".")[0])

    @staticmethod
    def serve_addresses():
        """What is the same for every bench of a run."""
        dhcp.serve()

    def start(self):
        remove_state(self.layout)
        self.layout.log.mkdir(parents=True)
        self.disk.attach()
        self.bmc.serve()
        self._proxy.serve()
        self.image_server.serve()
        self.conductor.start()
        self.node.enroll()

    def stop(self):
        self.bmc.stop()
        self.conductor.stop()
        self._proxy.stop()
        self.image_server.stop()
        self.disk.remove()
        remove_guards(self.layout.cgroup)

    def set_image(self, name, algorithm="sha256", digest=None, url=None, **more):
        digest = digest or self.images.digest(name, algorithm)
        self.node.set_image(url or f"{URL}/{name}", digest, algorithm, **more)

    def to_active(self):
        """A node with the whole-disk image on it."""
        if self.node.state == "active":
            return
        self.node.to_available()
        self.disk.blank()
        self.set_image("whole.raw", image_disk_format="raw")
        self.node.provision("active")
        self.node.wait("active")


def remove_state(layout):
    """Removes what the last run of this instance left, whatever ended it. The logs of the last run go with it."""
    Disk(layout.disk_image).remove()
    remove_guards(layout.cgroup)
    shutil.rmtree(layout.state, ignore_errors=True)
    layout.state.mkdir(parents=True)
