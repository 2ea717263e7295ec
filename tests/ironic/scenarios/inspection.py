"""In-band inspection: the agent reports what the machine is made of."""

from harness.failure import need
from harness.layout import DISK_BYTES, DISK_SERIAL, NODE_IP, NODE_MAC

from .registry import scenario


@scenario
def inspect(bench):
    """a new node is inspected, and its inventory is right"""
    bench.node.to_manageable()
    if "cpu_arch" in bench.node.get()["properties"]:
        bench.node.patch(("remove", "/properties/cpu_arch"))
    bench.node.provision("inspect")
    bench.node.wait("manageable")
    inventory = bench.node.inventory()["inventory"]
    disks = [disk for disk in inventory["disks"] if disk["name"] == "/dev/sda"]
    need(len(disks) == len(inventory["disks"]) == 1, f"the only disk is sda, not {inventory['disks']}")
    need(disks[0]["serial"] == DISK_SERIAL and disks[0]["size"] == DISK_BYTES, f"serial or size of {disks[0]}")
    cards = [card for card in inventory["interfaces"] if card["mac_address"] == NODE_MAC]
    need(cards and cards[0]["ipv4_address"] == NODE_IP and cards[0]["has_carrier"], f"interfaces: {inventory['interfaces']}")
    need(inventory["memory"]["physical_mb"] > 0 and inventory["cpu"]["count"] > 0, f"{inventory['memory']} {inventory['cpu']}")
    need(bench.node.get()["properties"].get("cpu_arch") == "x86_64", "cpu_arch did not become a property of the node")
    ports = bench.node.ports()
    need([port["address"] for port in ports] == [NODE_MAC] and ports[0]["pxe_enabled"], f"ports after the inspection: {ports}")
