"""The sysfs of a small server: one SATA disk, which the loop device plays, and one network card.

Trees in memory take the places of the host's block devices and PCI devices, so that no program needs to know about loop devices.
"""

import os
import stat
from pathlib import Path

from ..layout import DISK_SERIAL
from ..network import NODE_LINK
from ..syscalls import mount
from .root import HOST_SYS, PRIVATE, get, link, make_node, put

DISK = "sda"
MODEL = "HARNESS DISK"
WWN = "0x5000c50015ea71aa"
SERIAL = DISK_SERIAL
_PCI = "/sys/devices/pci0000:00"
_DISK_SLOT, _NIC_SLOT = "0000:00:02.0", "0000:00:03.0"
_SCSI = f"{_PCI}/{_DISK_SLOT}/ata1/host0/target0:0:0/0:0:0:0"
DISK_FOLDER = f"{_SCSI}/block/{DISK}"
"""Where sysfs describes the disk."""


def copy_attributes(source, target):
    """Copies the plain files of a sysfs folder that can be read; not what is below."""
    os.makedirs(target, exist_ok=True)
    for name in os.listdir(source):
        path = os.path.join(source, name)
        if os.path.isfile(path) and not os.path.islink(path):
            text = get(path, None)
            if text is not None:
                put(os.path.join(target, name), text)


def kernel_folder(loop):
    """What the kernel says about the loop device."""
    return f"{HOST_SYS}/devices/virtual/block/{os.path.basename(loop)}"


def build_hardware(loop, number):
    """Makes the disk and the card appear. `number` is (major, minor) of the loop device."""
    mount("pci", _PCI, "tmpfs", 0, "mode=755")
    _disk(kernel_folder(loop), number)
    _network_card()
    if os.path.isdir("/sys/bus/pci/devices"):
        mount("slots", "/sys/bus/pci/devices", "tmpfs", 0, "mode=755")
        for slot in (_DISK_SLOT, _NIC_SLOT):
            link(f"../../../devices/pci0000:00/{slot}", f"/sys/bus/pci/devices/{slot}")


def _pci_device(slot, vendor, device, kind, driver):
    folder = f"{_PCI}/{slot}"
    for name, value in (("vendor", vendor), ("device", device), ("class", kind), ("revision", "0x01")):
        put(f"{folder}/{name}", value + "\n")
    put(f"{folder}/subsystem_vendor", vendor + "\n")
    put(f"{folder}/subsystem_device", "0x0001\n")
    identity = f"{vendor[2:]}:{device[2:]}".upper()
    put(f"{folder}/uevent", f"DRIVER={driver}\nPCI_CLASS={kind[2:].lstrip('0').upper()}\nPCI_ID={identity}\nPCI_SLOT_NAME={slot}\n")
    link("/sys/bus/pci", f"{folder}/subsystem")
    if os.path.isdir(f"/sys/bus/pci/drivers/{driver}"):
        link(f"/sys/bus/pci/drivers/{driver}", f"{folder}/driver")


def _disk(kernel, number):
    _pci_device(_DISK_SLOT, "0x8086", "0x2922", "0x010601", "ahci")
    for name, value in (("vendor", "ATA     "), ("model", f"{MODEL:16}"), ("rev", "1.0 "), ("type", "0"), ("state", "running")):
        put(f"{_SCSI}/{name}", value + "\n")
    _identify()
    put(f"{_SCSI}/uevent", "DEVTYPE=scsi_device\nDRIVER=sd\n")
    os.makedirs(f"{_SCSI}/scsi_device/0:0:0:0")
    link("/sys/bus/scsi" if os.path.isdir("/sys/bus/scsi") else "/sys/bus", f"{_SCSI}/subsystem")
    copy_attributes(kernel, DISK_FOLDER)
    copy_attributes(kernel + "/queue", DISK_FOLDER + "/queue")
    put(f"{DISK_FOLDER}/queue/rotational", "0\n")
    for folder in ("holders", "slaves", "power"):
        os.makedirs(f"{DISK_FOLDER}/{folder}")
    major, minor = number
    sequence = get(kernel + "/diskseq", "1").strip()
    put(f"{DISK_FOLDER}/uevent", f"MAJOR={major}\nMINOR={minor}\nDEVNAME={DISK}\nDEVTYPE=disk\nDISKSEQ={sequence}\n")
    link("../../../0:0:0:0", f"{DISK_FOLDER}/device")
    link("/sys/class/block", f"{DISK_FOLDER}/subsystem")
    from_sys = "devices/" + DISK_FOLDER[len("/sys/devices/") :]
    for folder, name, up in (
        ("/sys/block", DISK, "../"),
        ("/sys/class/block", DISK, "../../"),
        ("/sys/dev/block", f"{major}:{minor}", "../../"),
    ):
        mount("block", folder, "tmpfs", 0, "mode=755")
        link(up + from_sys, f"{folder}/{name}")
    mount("block", "/sys/devices/virtual/block", "tmpfs", 0, "mode=755")
    make_node(f"/dev/{DISK}", stat.S_IFBLK, major, minor, 0o660)


def _identify():
    """The vital product data pages, as the kernel shows them: 0x80 the serial number, 0x83 the world-wide name."""
    serial, name = f"{SERIAL:>20}".encode(), bytes.fromhex(WWN[2:])
    descriptor = bytes([1, 3, 0, len(name)]) + name  # binary, NAA, of the logical unit
    for page, body in ((0x80, serial), (0x83, descriptor)):
        Path(f"{_SCSI}/vpd_pg{page:x}").write_bytes(bytes([0, page, 0, len(body)]) + body)
    put(f"{_SCSI}/wwid", f"naa.{WWN[2:]}\n")


def _network_card():
    _pci_device(_NIC_SLOT, "0x1af4", "0x1000", "0x020000", "virtio-pci")
    folder = f"{_PCI}/{_NIC_SLOT}/net/{NODE_LINK}"
    # An overlay of the real thing, so that the carrier is the true one, with a parent: agents skip cards that have none.
    layers = PRIVATE + "/nic"
    os.makedirs(layers)
    mount("nic", layers, "tmpfs")
    for layer in ("upper", "work"):
        os.mkdir(f"{layers}/{layer}")
    link(f"../../../{_NIC_SLOT}", f"{layers}/upper/device")
    os.makedirs(folder)
    lower = f"{HOST_SYS}/devices/virtual/net/{NODE_LINK}"
    mount("nic", folder, "overlay", 0, f"lowerdir={lower},upperdir={layers}/upper,workdir={layers}/work")
    mount("net", "/sys/class/net", "tmpfs", 0, "mode=755")
    link(f"../../devices/pci0000:00/{_NIC_SLOT}/net/{NODE_LINK}", f"/sys/class/net/{NODE_LINK}")
    link("../../devices/virtual/net/lo", "/sys/class/net/lo")
