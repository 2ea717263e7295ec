"""Facts of the machine that a transcript was recorded on, for comparing it with one that was recorded elsewhere.

Only what the inventory says of the host's processor, memory, firmware and network card is blurred, and only to its type and
form; on one machine nothing is.
"""

import pathlib
import re

# Paths inside an inventory; `*` is any item of a list.
PATHS = (
    ("cpu", "model_name"),
    ("cpu", "frequency"),
    ("cpu", "count"),
    ("cpu", "socket_count"),
    ("cpu", "flags"),
    ("memory", "total"),
    ("memory", "physical_mb"),
    ("system_vendor", "product_name"),
    ("system_vendor", "serial_number"),
    ("system_vendor", "manufacturer"),
    ("system_vendor", "firmware", "vendor"),
    ("system_vendor", "firmware", "version"),
    ("system_vendor", "firmware", "build_date"),
    ("interfaces", "*", "vendor"),
    ("interfaces", "*", "product"),
    ("interfaces", "*", "pci_address"),
    ("disks", "*", "by_path"),
)
NUMBER = re.compile(r"^\d+\.\d{4}$")


def of_this_machine():
    """What the inventory of an agent on this machine must hold, as `{path: value}`: from where every Linux has it."""
    processors = [
        dict(line.split(":", 1) for line in block.replace("\t", "").splitlines() if ":" in line)
        for block in pathlib.Path("/proc/cpuinfo").read_text().strip().split("\n\n")
    ]
    memory = int(pathlib.Path("/proc/meminfo").read_text().split("\n", 1)[0].split()[1])
    facts = {("cpu", "count"): len(processors), ("memory", "total"): memory * 1024}
    if "model name" in processors[0]:
        facts["cpu", "model_name"] = processors[0]["model name"].strip()
    if "flags" in processors[0]:
        facts["cpu", "flags"] = processors[0]["flags"].split()
    return facts


def form(value):
    """A value's type and form."""
    if isinstance(value, list):
        return [form(item) for item in value[:1]]
    if isinstance(value, str):
        return "<number as text>" if NUMBER.match(value) else "<text>"
    if type(value) in (int, float) and value <= 0:
        return f"<{type(value).__name__}, not positive>"
    return value if value is None else f"<{type(value).__name__}>"


def _at(value, path):
    if not path:
        return form(value)
    name, rest = path[0], path[1:]
    if name == "*" and isinstance(value, list):
        return [_at(item, rest) for item in value]
    if isinstance(value, dict) and name in value:
        return {key: _at(item, rest) if key == name else item for key, item in value.items()}
    return value


def inventory(value):
    """An inventory without the host's facts."""
    for path in PATHS:
        value = _at(value, path)
    return value


def _blur(value):
    if isinstance(value, dict):
        is_inventory = {"interfaces", "cpu", "memory"} <= set(value)
        return inventory(value) if is_inventory else {key: _blur(item) for key, item in value.items()}
    return [_blur(item) for item in value] if isinstance(value, list) else value


def blur(records):
    """Records with every inventory blurred."""
    return [_blur(record) for record in records]
