"""The database and the links that udevd would keep: agents ask them for serial numbers and file systems."""

import os
import subprocess

from .hardware import DISK, MODEL, SERIAL, WWN
from .root import link, put

_DATABASE = "/run/udev/data"
_PATH = "pci-0000:00:02.0-ata-1"
_IDENTITY = f"ata-{MODEL.replace(' ', '_')}_{SERIAL}"
_PROPERTIES = {
    "ID_ATA": "1",
    "ID_TYPE": "disk",
    "ID_BUS": "ata",
    "ID_MODEL": MODEL.replace(" ", "_"),
    "ID_MODEL_ENC": MODEL.replace(" ", "\\x20"),
    "ID_REVISION": "1.0",
    "ID_SERIAL": f"{MODEL.replace(' ', '_')}_{SERIAL}",
    "ID_SERIAL_SHORT": SERIAL,
    "ID_WWN": WWN,
    "ID_WWN_WITH_EXTENSION": WWN,
    "ID_PATH": _PATH,
    "ID_PATH_TAG": "pci-0000_00_02_0-ata-1",
}
_LINKS = (
    ("ID_FS_UUID_ENC", "by-uuid"),
    ("ID_FS_LABEL_ENC", "by-label"),
    ("ID_PART_ENTRY_UUID", "by-partuuid"),
    ("ID_PART_ENTRY_NAME", "by-partlabel"),
)


class Udev:
    def __init__(self, number):
        self._number = number
        self._published = None

    def publish(self, partitions):
        records, links = {}, {}
        devices = [(DISK, self._number, "")]
        devices += [(partition.name, partition.device, f"-part{partition.number}") for partition in partitions]
        for name, device, suffix in devices:
            properties = {**_PROPERTIES, **_probe(f"/dev/{name}")}
            own = [f"disk/by-path/{_PATH}{suffix}", f"disk/by-id/{_IDENTITY}{suffix}", f"disk/by-id/wwn-{WWN}{suffix}"]
            own += [
                f"disk/{folder}/{properties[key].replace('/', '_')}" for key, folder in _LINKS if properties.get(key)
            ]
            links.update(dict.fromkeys(own, name))
            lines = [f"S:{path}" for path in own] + ["I:1000000"]
            lines += [f"E:{key}={value}" for key, value in sorted(properties.items())]
            records["b%d:%d" % device] = "\n".join([*lines, "G:systemd", "Q:systemd", "V:1", ""])
        if records == self._published:
            return
        os.makedirs(_DATABASE, exist_ok=True)
        for name in os.listdir(_DATABASE):
            if name.startswith("b") and name not in records:
                os.unlink(f"{_DATABASE}/{name}")
        for name, text in records.items():
            put(f"{_DATABASE}/{name}", text)
        for folder, _, names in os.walk("/dev/disk"):
            for name in names:
                if os.path.relpath(os.path.join(folder, name), "/dev") not in links:
                    os.unlink(os.path.join(folder, name))
        for path, name in links.items():
            link("../../" + name, f"/dev/{path}")
        self._published = records


def _probe(device):
    output = subprocess.run(["blkid", "-p", "-o", "udev", device], capture_output=True, text=True).stdout
    return dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
