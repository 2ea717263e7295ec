"""Two network namespaces joined by a cable: the conductor's side (`prov0`) and the machine's (`eth0`)."""

import json
import subprocess

from .layout import CONTROL_IP, NODE_IP, NODE_MAC

CONTROL_LINK, NODE_LINK = "prov0", "eth0"


class Network:
    def __init__(self, layout):
        self._control, self._node = layout.control_namespace, layout.node_namespace

    def up(self):
        self.down()
        _ip("netns", "add", self._control)
        _ip("netns", "add", self._node)
        _ip("-n", self._control, "link", "add", CONTROL_LINK, "type", "veth", "peer", "name", NODE_LINK, "netns", self._node)
        _ip("-n", self._node, "link", "set", NODE_LINK, "address", NODE_MAC)
        for namespace, link in ((self._control, "lo"), (self._control, CONTROL_LINK), (self._node, "lo")):
            _ip("-n", namespace, "link", "set", link, "up")
        _ip("-n", self._control, "addr", "add", f"{CONTROL_IP}/24", "dev", CONTROL_LINK)

    def down(self):
        """Removes what this or an earlier run made; nothing to do is fine."""
        for namespace in (self._node, self._control):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True)

    def prepare_machine(self, configured):
        """The machine's link as its firmware leaves it: without an address, unless the ramdisk's own init gives it one before
        the agent starts."""
        _ip("-n", self._node, "addr", "flush", "dev", NODE_LINK)
        _ip("-n", self._node, "link", "set", NODE_LINK, "down")
        if configured:
            _ip("-n", self._node, "link", "set", NODE_LINK, "up")
            _ip("-n", self._node, "addr", "add", f"{NODE_IP}/24", "dev", NODE_LINK)
            _ip("-n", self._node, "route", "add", "default", "via", CONTROL_IP, "dev", NODE_LINK)

    def machine_link(self):
        """`up` or `down`: what the machine has made of its link."""
        shown = _ip("-n", self._node, "-json", "link", "show", NODE_LINK)
        return "up" if "UP" in json.loads(shown)[0]["flags"] else "down"


def _ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
