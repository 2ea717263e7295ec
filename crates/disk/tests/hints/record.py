"""Records what ironic-python-agent says of root device hints: `PYTHONPATH=<its tree> python3 record.py > upstream.json`.

Needs its `ironic_python_agent/device_hints.py` and oslo.utils. The devices are those of the data plane page, A.3, with the serial
numbers and world-wide names that lsblk and udev give, and a third one with a long world-wide name.
"""

import json
import logging

from ironic_python_agent import device_hints

logging.disable(logging.CRITICAL)

GIB = 1 << 30
LONG = "0x6000c2900102030405060708090a0b0c"
DEVICES = {
    "A": {"name": "/dev/sda", "size": 10 * GIB + 5, "model": "Foo Bar 123", "vendor": "ATA",
          "serial": ["ABC", "ABC", "Foo_Bar_123_ABC"], "wwn": [None, "0x5000"], "wwn_with_extension": None,
          "wwn_vendor_extension": None, "rotational": True, "hctl": "1:0:0:0",
          "by_path": "/dev/disk/by-path/pci-0000:00:1f.2-ata-2.0", "tran": "sata"},
    "B": {"name": "/dev/nvme0n1", "size": 20 * GIB, "model": "NVME X", "vendor": None, "serial": [None, None, None],
          "wwn": [None, None], "wwn_with_extension": None, "wwn_vendor_extension": None, "rotational": False,
          "hctl": None, "by_path": None, "tran": "nvme"},
    "C": {"name": "/dev/sdb", "size": 10 * GIB, "model": "Virtual disk", "vendor": "VMware",
          "serial": ["S1", LONG[2:], "3" + LONG[2:]], "wwn": [LONG, LONG[:18]], "wwn_with_extension": LONG,
          "wwn_vendor_extension": "0x" + LONG[18:], "rotational": True, "hctl": "2:0:0:0",
          "by_path": "/dev/disk/by-path/pci-0000:03:00.0-scsi-0:0:0:0", "tran": "sas"},
}
TEXT_VALUES = {
    "model": ["foo bar 123", "NVME X", "virtual", "foo%20bar", "none"],
    "vendor": ["ata", "none", "VMware"],
    "serial": ["abc", "Foo_Bar_123_ABC", "s1", "3" + LONG[2:], "none"],
    "wwn": ["0x5000", LONG.upper(), LONG[:18], "none"],
    "wwn_with_extension": [LONG, "none"],
    "wwn_vendor_extension": ["0x" + LONG[18:], "none"],
    "name": ["/dev/sda", "/DEV/NVME0N1", "sda"],
    "hctl": ["1:0:0:0", "0:0", "none"],
    "by_path": ["/dev/disk/by-path/pci-0000:00:1f.2-ata-2.0", "pci-0000:03", "none"],
    "tran": ["SATA", "nvme", "sa"],
}
TEXT_FORMS = ["%s", "  %s  ", "s== %s", "s==%s", "s!= %s", "s< %s", "s<= %s", "s> %s", "s>= %s", "<in> %s", "<in>%s", "<or> %s",
              "<or> x <or> %s", "<or>%s<or>x", "== %s", "> %s"]
SIZE_VALUES = [10, 20, "10", " 20 ", "+20", "10.5", -1, 0, True, 20.0, "", None, "20 GB", ">= ten", ">= 10 20", "<or> 10 <or> 20",
               "<range-in> [ 5 15 ]", "<in> 2", "<all-in> 20", "s== 20"]
SIZE_FORMS = ["= %s", "=%s", "== %s", "==%s", "!= %s", "< %s", "<%s", "<= %s", "> %s", ">= %s", ">=%s"]
OTHERS = [
    {"model": ""}, {"model": " "}, {"model": 5}, {"model": None}, {"model": True}, {"model": ["x"]}, {"model": "s=="},
    {"model": "<in>"}, {"model": "<or>"}, {"model": "foo  bar 123"}, {"model": "<in> bar <in> foo"},
    {"model": "<in> bar <in> x"}, {"model": "<in> 20"}, {"model": "<all-in> foo bar"}, {"model": "<all-in> foo"},
    {"model": "<range-in> [ 1 2 ]"}, {"model": "s== foo s== bar"}, {"model": "<or> foo bar 123 <or> nvme x"},
    {"rotational": "0"}, {"rotational": 0}, {"rotational": 1}, {"rotational": False}, {"rotational": True}, {"rotational": "Yes"},
    {"rotational": "T"}, {"rotational": "off"}, {"rotational": " on "}, {"rotational": "maybe"}, {"rotational": ""},
    {"rotational": None}, {"rotational": 2},
    {"name": "/dev/sda", "rotational": False}, {"name": "/dev/sda", "size": "= 10", "vendor": "ata"},
    {"size": 10, "rotational": "yes", "tran": "sas"}, {"colour": "red"}, {"name": "/dev/sda", "colour": "red"}, {},
    {"by_path": "/dev/disk/by-path/pci-0000:00:1f.2-ata-2"},
]


def outcome(hints):
    try:
        found = device_hints.find_devices_by_hints(list(DEVICES.values()), hints)
        return {"matches": "".join(letter for device in found for letter, known in DEVICES.items() if known is device)}
    except Exception as error:
        return {"error": type(error).__name__}


def questions():
    yield from ({"size": value} for value in SIZE_VALUES)
    yield from ({"size": form % value} for form in SIZE_FORMS for value in (10, 15, 20))
    for hint, values in TEXT_VALUES.items():
        yield from ({hint: form % value} for value in values for form in TEXT_FORMS)
    yield from OTHERS


lines = [json.dumps({"hints": hints, **outcome(hints)}) for hints in questions()]
print('{"devices": ' + json.dumps(DEVICES) + ',\n "vectors": [\n' + ",\n".join(lines) + "\n]}")
